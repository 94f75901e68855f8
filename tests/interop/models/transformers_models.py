"""Transformers of the `transformers` package, tiny and with random weights, exported with free batch and sequence length."""

import models.torchvision_models  # noqa: F401  (makes torchvision, which transformers looks for, importable beside a CPU torch)
import torch
import transformers as hf
from torch import nn

from models import BATCH, SEQUENCE, Case, image, tokens

VOCABULARY = 99
TEXT = dict(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, max_position_embeddings=64)
VISION = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, image_size=32, patch_size=8)


class Plain(nn.Module):
    """Positional inputs, tensors out: the fields of the output that the case names."""

    def __init__(self, model, inputs, outputs):
        super().__init__()
        self.model, self.inputs, self.outputs = model, inputs, outputs

    def forward(self, *args):
        result = self.model(**dict(zip(self.inputs, args)), return_dict=True)
        return tuple(result[name] for name in self.outputs)


def text(model, config, *, outputs=("last_hidden_state",), mask=True, **options):
    def make():
        settings = config(**options)
        settings.use_cache = False
        return Plain(model(settings), ("input_ids", "attention_mask") if mask else ("input_ids",), outputs)
    return make


def vision(model, config, *, outputs=("last_hidden_state",), **options):
    return lambda: Plain(model(config(**options)), ("pixel_values",), outputs)


def masked_tokens(batch, length):
    mask = torch.ones(batch, length, dtype=torch.int64)
    mask[-1, length // 2:] = 0
    return (*tokens(VOCABULARY)(batch, length), mask)


def encoder_decoder(batch, length):
    return (*tokens(VOCABULARY)(batch, length), *tokens(VOCABULARY)(batch, 6))


def t5():
    settings = hf.T5Config(vocab_size=VOCABULARY, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4)
    settings.use_cache = False
    return Plain(hf.T5EncoderModel(settings), ("input_ids", "attention_mask"), ("last_hidden_state",))


def bart():
    settings = hf.BartConfig(vocab_size=VOCABULARY, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
                             decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, max_position_embeddings=64)
    settings.use_cache = False
    return Plain(hf.BartModel(settings), ("input_ids", "decoder_input_ids"), ("last_hidden_state",))


def whisper():
    settings = hf.WhisperConfig(vocab_size=VOCABULARY, d_model=32, encoder_layers=2, decoder_layers=1, encoder_attention_heads=4,
                                decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, num_mel_bins=8,
                                max_source_positions=20, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1)
    encoder = hf.models.whisper.modeling_whisper.WhisperEncoder(settings)
    return Plain(encoder, ("input_features",), ("last_hidden_state",))


def opt():
    return hf.OPTConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, ffn_dim=48, max_position_embeddings=64)


MASKED = (("batch", "length"), ("batch", "length"))
LLAMA = dict(TEXT, num_key_value_heads=2)
LOGITS = ("logits",)
CASES = [
    Case("bert", text(hf.BertModel, hf.BertConfig, outputs=("last_hidden_state", "pooler_output"), **TEXT), masked_tokens, MASKED, retrain=True),
    Case("bert_eager_attention", text(hf.BertModel, hf.BertConfig, attn_implementation="eager", **TEXT), masked_tokens, MASKED),
    Case("roberta", text(hf.RobertaModel, hf.RobertaConfig, **TEXT), masked_tokens, MASKED),
    Case("distilbert", text(hf.DistilBertModel, hf.DistilBertConfig, vocab_size=VOCABULARY, dim=32, n_layers=2, n_heads=4, hidden_dim=48, max_position_embeddings=64), masked_tokens, MASKED),
    Case("albert", text(hf.AlbertModel, hf.AlbertConfig, embedding_size=16, **TEXT), masked_tokens, MASKED),
    Case("electra", text(hf.ElectraModel, hf.ElectraConfig, embedding_size=16, **TEXT), masked_tokens, MASKED),
    Case("gpt2", text(hf.GPT2LMHeadModel, hf.GPT2Config, outputs=LOGITS, vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=64, mask=False), tokens(VOCABULARY), SEQUENCE, retrain=True),
    Case("llama_gqa", text(hf.LlamaForCausalLM, hf.LlamaConfig, outputs=LOGITS, mask=False, **LLAMA), tokens(VOCABULARY), SEQUENCE, retrain=True),
    Case("qwen2", text(hf.Qwen2ForCausalLM, hf.Qwen2Config, outputs=LOGITS, mask=False, **LLAMA), tokens(VOCABULARY), SEQUENCE),
    Case("gemma", text(hf.GemmaForCausalLM, hf.GemmaConfig, outputs=LOGITS, mask=False, head_dim=8, **LLAMA), tokens(VOCABULARY), SEQUENCE),
    Case("gpt_neox", text(hf.GPTNeoXForCausalLM, hf.GPTNeoXConfig, outputs=LOGITS, mask=False, **TEXT), tokens(VOCABULARY), SEQUENCE),
    Case("opt", lambda: Plain(hf.OPTModel(opt()), ("input_ids", "attention_mask"), ("last_hidden_state",)), masked_tokens, MASKED),
    Case("t5_encoder", t5, masked_tokens, MASKED),
    Case("bart", bart, encoder_decoder, (("batch", "length"), ("batch",))),
    Case("whisper_encoder", whisper, lambda b, n: (torch.randn(b, 8, 40),), BATCH),
    Case("hf_vit", vision(hf.ViTModel, hf.ViTConfig, **VISION), image(32), BATCH),
    Case("deit", vision(hf.DeiTModel, hf.DeiTConfig, **VISION), image(32), BATCH),
    Case("clip_vision", vision(hf.CLIPVisionModel, hf.CLIPVisionConfig, **VISION), image(32), BATCH),
    Case("hf_swin", vision(hf.SwinModel, hf.SwinConfig, image_size=32, patch_size=2, embed_dim=16, depths=[1, 2], num_heads=[2, 4], window_size=4), image(32), BATCH),
    Case("segformer", vision(hf.SegformerModel, hf.SegformerConfig, depths=[1, 1, 1, 1], hidden_sizes=[8, 16, 24, 32]), image(64), BATCH),
]
