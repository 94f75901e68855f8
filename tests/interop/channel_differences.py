"""Networks whose coupled channels Lathe and Torch-Pruning see differently, and why."""

ATTENTION = "attention: Torch-Pruning couples queries, keys and values channel by channel; Lathe offers whole heads, offsets of queries and keys, and offsets of values, each by itself"
FUSED = "a fused layer of queries, keys and values: Torch-Pruning cuts its rows as if they were one list; Lathe cuts all three parts alike"
MODULE = "nn.MultiheadAttention: Torch-Pruning cuts its inside only with the residual stream; Lathe offers heads and their offsets by themselves"
GROUPED = "grouped convolutions: both cut the same offset in every group, Lathe offers whole groups, too"
SLOW = "Torch-Pruning does not finish within 20 s of processor time"
STOPS = "Torch-Pruning divides by zero in its analysis"
RECURRENT = "Torch-Pruning begins at convolutions, linear layers and LSTMs, and finds no columns of an embedding"
TRANSPOSED = "Torch-Pruning takes a transposition for an element-wise operator, so that tokens and channels are one"

DIFFERENCES = {
    "resnet20_a": "the shortcut pads channels with zeros: Torch-Pruning does not find the channels of the later two stages, and what it has pruned does not run",
    "grouped_shuffle": "Torch-Pruning follows a channel shuffle as if it moved nothing; here every channel is needed for another group's",
    "norms_1d": "the channels are outputs, behind normalisations whose order Torch-Pruning does not see through",
    "wide_resnext": GROUPED,
    "regnet_y": GROUPED,
    "lstm": RECURRENT,
    "lstm_bidirectional": RECURRENT,
    "gru": RECURRENT,
    "elman_rnn": RECURRENT,
    "transformer_encoder": MODULE,
    "transformer_decoder": MODULE,
    "vit": MODULE,
    "detector_fpn": "Torch-Pruning leaves out the buffers of FrozenBatchNorm2d, and what it has pruned does not run",
    "nfnet": "Torch-Pruning leaves out the gains of standardised convolutions, and what it has pruned does not run",
    "ecaresnet": "a convolution along the channels reads neighbours: Lathe leaves those channels alone, Torch-Pruning cuts them",
    "ghostnet": "behind the slice of a concatenation Torch-Pruning leaves out some tensors that lose the same channels, batch norms among them",
    "shufflenet_v2": STOPS,
    "twins": STOPS,
    "swin": SLOW,
    "swin_v2": SLOW,
    "maxvit": SLOW,
    "resnest14": "split attention: Torch-Pruning also cuts the layer that makes the weights of both halves by itself",
    "llama_gqa": SLOW,
    "qwen2": SLOW,
    "gemma": SLOW,
    "gpt2": "Torch-Pruning does not know the linear layer of transformers' GPT-2 (Conv1D)",
    "mixer": TRANSPOSED,
    "gmlp": TRANSPOSED,
    "levit": FUSED,
    "xcit": FUSED,
    "coat": FUSED,
    "cait": FUSED,
    "mobilevit": FUSED,
    "edgenext": FUSED,
    **dict.fromkeys(("bert", "bert_eager_attention", "roberta", "distilbert", "albert", "electra", "opt", "t5_encoder", "bart", "whisper_encoder",
                     "hf_vit", "deit", "clip_vision", "hf_swin", "segformer"), ATTENTION),
}

NO_SAME_CHOICE = {
    "mobilenet_v2": "Torch-Pruning's score leaves out depthwise convolutions",
}
"""Networks of equal groups where equal criteria still choose different channels."""
