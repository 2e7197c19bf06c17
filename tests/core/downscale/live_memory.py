"""Peak memory of the tensors that a piece of code makes, counted as they come and go.

On the meta device, which has shapes and no numbers, this takes next to no time and memory at any size.
"""

import weakref

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten


class LiveMemory(TorchDispatchMode):
    """Within the ``with`` block counts bytes of new tensors that are alive; ``peak`` is the most."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self._alive = {}

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        given = {
            t.untyped_storage()._cdata
            for t in tree_flatten((arguments, options or {}))[0]
            if hasattr(t, "untyped_storage")
        }
        result = function(*arguments, **(options or {}))
        for tensor in tree_flatten(result)[0]:
            if hasattr(tensor, "untyped_storage"):
                self._count(tensor.untyped_storage(), given)
        return result

    def _count(self, storage, given):
        key = storage._cdata
        if key in self._alive or key in given:
            return
        size = storage.nbytes()
        self._alive[key] = weakref.ref(storage, lambda _: self._forget(key, size))
        self.now += size
        self.peak = max(self.peak, self.now)

    def _forget(self, key, size):
        del self._alive[key]
        self.now -= size
