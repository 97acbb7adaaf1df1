"""How batches come from worker processes: in blocks of shared memory that are used again and again.

Torch makes new shared memory for each tensor and passes its descriptor through a connection with a handshake; for a
batch of 800 KB that takes more time than reading it. Here a worker writes tensors into blocks of its own (anonymous
files in memory), which the receiver maps once, by ``/proc/<worker>/fd``. The first page of a block has a byte for each
tensor in it that the receiver still holds; when none is left, the worker uses the block again. Nothing outlives the
processes, and nothing is ever written to while anyone can see it.
"""

from __future__ import annotations

import mmap
import os
import sys
import threading
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

SMALL_BYTES = 1 << 14  # below this a tensor travels in the message itself
HEADER = 4096
MAX_BLOCKS = 256  # descriptors that a worker uses at most
SPARE_BLOCKS = 16  # unused ones that it keeps
MAPPED_BYTES = 512 << 20  # what the receiver keeps mapped without need


def usable() -> bool:
    """Whether this system has what it takes; elsewhere tensors travel as torch sends them."""
    return sys.platform == "linux" and os.path.isdir(f"/proc/{os.getpid()}/fd")


class SharedBlock:
    """One block.

    Attributes:
        size: bytes that fit.
        lent: whether a tensor of this process lies in it.
        sent: how many tensors in it were sent with the last message.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.descriptor = os.memfd_create("batch", os.MFD_CLOEXEC)
        os.ftruncate(self.descriptor, HEADER + size)
        self.inode = os.fstat(self.descriptor).st_ino
        self.memory = mmap.mmap(self.descriptor, HEADER + size)
        self.lent = False
        self.sent = 0

    @property
    def free(self) -> bool:
        """Whether nobody, here or there, can see what is in it."""
        return not self.lent and self.memory[: self.sent] == bytes(self.sent)

    def lend(self, nbytes: int) -> torch.Tensor:
        """Its beginning as a tensor of bytes; lent as long as that, or a view of it, lives."""
        array = np.frombuffer(self.memory, np.uint8, nbytes, HEADER)
        self.lent, self.sent = True, 0
        weakref.finalize(array, self._returned).atexit = False
        return torch.from_numpy(array)

    def close(self) -> None:
        """Give the memory back."""
        self.memory.close()
        os.close(self.descriptor)

    def _returned(self) -> None:
        self.lent = False


class SharedBlocks:
    """The blocks of one worker."""

    def __init__(self) -> None:
        self._blocks: list[SharedBlock] = []
        self._lent: dict[int, SharedBlock] = {}  # by address

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor | None:
        """An uninitialised tensor in a block; None where there are too many blocks."""
        nbytes = int(np.prod(shape)) * dtype.itemsize
        block = self._take(nbytes)
        if block is None:
            return None
        tensor = block.lend(nbytes)
        self._lent[tensor.data_ptr()] = block
        return tensor.view(dtype).view(tuple(shape))

    def packed(self, value: Any) -> Any:
        """A batch as it is to be pickled: plain tensors in dicts, lists and tuples lie in blocks."""
        if type(value) is dict:
            return {name: self.packed(part) for name, part in value.items()}
        if type(value) in {list, tuple}:
            return type(value)(self.packed(part) for part in value)
        if not isinstance(value, torch.Tensor) or not _plain(value):
            return value
        block = self._lent.get(value.untyped_storage().data_ptr())
        if block is None or not block.lent:
            if value.nbytes < SMALL_BYTES:
                return _Small(value)
            copy = self.empty(value.shape, value.dtype)
            if copy is None:
                return value
            value = copy.copy_(value)
            block = self._lent[value.untyped_storage().data_ptr()]
        if block.sent == HEADER:
            return value.clone()
        block.memory[block.sent] = 1
        block.sent += 1
        return _Piece(block, value)

    def _take(self, nbytes: int) -> SharedBlock | None:
        free = [block for block in self._blocks if block.free]
        for block in free:
            if nbytes <= block.size <= max(4 * nbytes, 1 << 20):
                return block
        for block in free[SPARE_BLOCKS:] if len(self._blocks) < MAX_BLOCKS else free:
            self._blocks.remove(block)
            self._lent = {address: other for address, other in self._lent.items() if other is not block}
            block.close()
        if len(self._blocks) >= MAX_BLOCKS:
            return None
        step = max(1 << 16, 1 << max(0, nbytes.bit_length() - 3))
        try:
            block = SharedBlock(-(-nbytes // step) * step)
        except OSError:  # no descriptor or no memory left
            return None
        self._blocks.append(block)
        return block


_own: SharedBlocks | None = None


def use_blocks() -> None:
    """Let this worker process make its tensors in blocks."""
    global _own
    _own = SharedBlocks()


def blocks_of_process() -> SharedBlocks | None:
    """The blocks of this process; None where it is no worker of ours."""
    return _own


class _Small:
    """A tensor that travels as its bytes."""

    def __init__(self, tensor: torch.Tensor) -> None:
        flat = tensor.reshape(-1).contiguous().view(torch.uint8)
        self._parts = (flat.numpy().tobytes(), tensor.dtype, tuple(tensor.shape))

    def __reduce__(self) -> tuple[Any, ...]:
        return _of_bytes, self._parts


def _of_bytes(data: bytes, dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.frombuffer(bytearray(data), dtype=dtype).view(shape) if data else torch.empty(shape, dtype=dtype)


class _Piece:
    """A tensor in a block; unpickled, it is the tensor."""

    def __init__(self, block: SharedBlock, tensor: torch.Tensor) -> None:
        place = (tuple(tensor.shape), tensor.stride(), tensor.storage_offset())
        address = (os.getpid(), block.descriptor, block.inode, block.size)
        self._parts = (address, block.sent - 1, tensor.untyped_storage().nbytes(), tensor.dtype, place)

    def __reduce__(self) -> tuple[Any, ...]:
        return _of_block, self._parts


class WorkerGone(RuntimeError):
    """A batch came in a block that is gone with its worker."""


BlockAddress = tuple[int, int, int, int]
"""Process, descriptor, inode, size."""
_mapped: OrderedDict[BlockAddress, mmap.mmap] = OrderedDict()
_mapping = threading.Lock()


def _of_block(
    address: BlockAddress, mark: int, nbytes: int, dtype: torch.dtype, place: tuple[Any, ...]
) -> torch.Tensor:
    memory = _memory(address)
    array = np.frombuffer(memory, np.uint8, nbytes, HEADER)
    weakref.finalize(array, memory.__setitem__, mark, 0).atexit = False
    whole = torch.from_numpy(array)[: nbytes - nbytes % dtype.itemsize]
    return whole.view(dtype).as_strided(*place)


def _memory(address: BlockAddress) -> mmap.mmap:
    """A worker's block, mapped here.

    Raises:
        WorkerGone: it was killed after it had sent the batch.
    """
    pid, descriptor, inode, size = address
    with _mapping:
        found = _mapped.get(address)
        if found is None:
            gone = WorkerGone(f"Worker process {pid} was killed before its batch had arrived.")
            try:
                opened = os.open(f"/proc/{pid}/fd/{descriptor}", os.O_RDWR | os.O_CLOEXEC)
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                raise gone from None
            try:
                if os.fstat(opened).st_ino != inode:  # the number is another process's by now
                    raise gone
                found = _mapped[address] = mmap.mmap(opened, HEADER + size)
            finally:
                os.close(opened)
            for other in [other for other in _mapped if not os.path.exists(f"/proc/{other[0]}")]:
                del _mapped[other]
            while len(_mapped) > 1 and sum(other[3] for other in _mapped) > MAPPED_BYTES:
                _mapped.popitem(last=False)
        else:
            _mapped.move_to_end(address)
        return found


def _plain(tensor: torch.Tensor) -> bool:
    """Whether it is nothing but numbers in memory."""
    ordinary = type(tensor) is torch.Tensor and tensor.layout is torch.strided and tensor.device.type == "cpu"
    return ordinary and not (tensor.requires_grad or tensor.is_conj() or tensor.is_neg() or tensor.is_quantized)
