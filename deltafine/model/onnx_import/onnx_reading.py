"""Reading an ONNX file that others made, with its weights, or saying in one sentence why it cannot be."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from deltafine.errors import DeltafineError
from deltafine.storage.files import is_lfs_pointer

OLDEST = 13
"""Opset; before it, axes and limits were attributes, and softmax worked on other axes."""
STANDARD = ("", "ai.onnx")
_AGAIN = "copy it or export it again"


def read(path: Path) -> Any:
    """The model of an ONNX file, with weights that lie beside it.

    Raises:
        DeltafineError: ``onnx`` is not installed, or the file, or one beside it, is cut short, damaged or too old.
    """
    if importlib.util.find_spec("onnx") is None:
        raise DeltafineError("to read ONNX, deltafine needs onnx: pip install 'deltafine[onnx]'.")
    import onnx

    try:
        proto = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # of protobuf's own kinds
        raise DeltafineError(f"it is not a readable ONNX file, it may be cut short: {_AGAIN}.") from error
    if not proto.graph.node:
        raise DeltafineError(f"it is no ONNX file with a network in it: {_AGAIN}.")
    opset = max((entry.version for entry in proto.opset_import if entry.domain in STANDARD), default=0)
    if opset < OLDEST:
        raise DeltafineError(f"it is ONNX of opset {opset}, and deltafine reads {OLDEST} and later: export it with 17.")
    if opset > onnx.defs.onnx_opset_version():
        raise DeltafineError(
            f"it is ONNX of opset {opset}, and the installed onnx {onnx.__version__} knows "
            f"{onnx.defs.onnx_opset_version()}: export it with that, or pip install --upgrade onnx."
        )
    _read_beside(proto, path)
    return opened(proto)


def files_beside(path: Path) -> list[Path]:
    """The files in which an ONNX file that was read before keeps weights, in the order of their names."""
    import onnx
    from onnx.external_data_helper import ExternalDataInfo, uses_external_data

    proto = onnx.load(str(path), load_external_data=False)
    names = {ExternalDataInfo(tensor).location for tensor in _tensors(proto.graph) if uses_external_data(tensor)}
    return [path.resolve().parent / name for name in sorted(names)]


def opened(proto: Any) -> Any:
    """The same with the operators of functions that an exporter wrote in place of calls of them."""
    import onnx.inliner

    return onnx.inliner.inline_local_functions(proto) if proto.functions else proto


def check(proto: Any) -> None:
    """Refuse a graph that is not as ONNX wants it, for example with nodes that read what is not there.

    Raises:
        DeltafineError: saying what onnx's own checker says.
    """
    import onnx

    try:
        onnx.checker.check_model(proto)
    except Exception as error:  # the checker's own kind, or that of a model of more than 2 GiB
        raise DeltafineError(f"it is not valid ONNX ({' '.join(str(error).split())[:200]}): {_AGAIN}.") from error


def _read_beside(proto: Any, path: Path) -> None:
    """Read weights that are kept in files of their own, which may lie only in the folder of the model or below it."""
    import onnx
    from onnx.external_data_helper import ExternalDataInfo, load_external_data_for_tensor, uses_external_data

    folder = path.resolve().parent
    for tensor in _tensors(proto.graph):
        if not uses_external_data(tensor):
            continue
        info = ExternalDataInfo(tensor)
        file = folder / info.location
        if not file.resolve().is_relative_to(folder):
            raise DeltafineError(f"its weights lie in {info.location!r}, outside its folder, and are not read.")
        if not file.is_file():
            raise DeltafineError(f"its weights lie in {info.location!r}, which is not beside it: copy that file, too.")
        if is_lfs_pointer(file):
            raise DeltafineError(
                f"its weights lie in {info.location!r}, which is a Git LFS pointer: fetch it with git lfs pull."
            )
        if (info.offset or 0) + (info.length or 0) > file.stat().st_size:
            raise DeltafineError(f"its weights in {info.location!r} are cut short: copy that file again.")
        try:
            load_external_data_for_tensor(tensor, str(folder))
        except Exception as error:
            raise DeltafineError(f"its weights in {info.location!r} cannot be read ({str(error)[:100]}).") from error
        tensor.data_location = onnx.TensorProto.DEFAULT
        del tensor.external_data[:]


def _tensors(graph: Any) -> list[Any]:
    return [*graph.initializer, *(a.t for node in graph.node for a in node.attribute if a.HasField("t"))]
