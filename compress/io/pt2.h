// Models in the .pt2 format of Python's torch.export.

#pragma once

#include "compress/graph/batch.h"
#include "compress/model.h"

#include <filesystem>
#include <memory>

namespace compress {

class MappedFile;

/// Reads a program that `torch.export.save` wrote (torch 2.5 and later).
///
/// Weights are mapped from the file, not copied. The graph becomes functional
/// (compress/graph/functionalize.h), subgraphs of higher-order operators that only wrap a part of
/// the program are inlined, checks of shapes and dtypes are dropped, and a batch size that the
/// exporter fixed is made free where that changes no result (compress/graph/batch.h). What is not
/// in the graph but needed to write the program again is kept in `Model::metadata`.
///
/// Throws Error(kIo), Error(kBadFile) with a JSON pointer, and Error(kUnsupported) naming what
/// straight-line graphs cannot express: control flow (`cond`, `while_loop`), custom objects,
/// mutations that another part of the program would see.
Model load_pt2(const std::filesystem::path& path, const BatchOptions& batch = {});
/// The same from a file that is already mapped or in memory.
Model load_pt2(const std::shared_ptr<MappedFile>& file, const BatchOptions& batch = {});

/// Writes `model` as a program that Python's `torch.export.load` (torch 2.9 and later) loads, runs,
/// trains and exports again without any extension of ours. The file appears whole or not at all,
/// and the same model gives the same bytes. `metadata` travels as the record extra/lathe.json.
///
/// Throws Error(kInvalidArgument) for a bare set of tensors and for tensors without contents,
/// Error(kUnsupported) for operators that plain Python lacks, Error(kIo).
void save_pt2(const Model& model, const std::filesystem::path& path);

}  // namespace compress
