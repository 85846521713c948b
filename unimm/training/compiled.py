"""What compiled layers keep and take: traced and cut as the compiler does, without compiling.

A layer is traced and cut into forward and backward by the functions that ``torch.compile`` uses, so
what it keeps between the two is what the compiler chooses to keep. No kernel is made of it: neither
a GPU nor tensors with data are needed.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._functorch.aot_autograd import aot_function
from torch._functorch.partitioners import min_cut_rematerialization_partition
from torch._inductor.decomposition import select_decomp_table
from torch._inductor.fx_passes.joint_graph import joint_graph_passes
from torch._ops import OpOverload
from torch.func import functional_call
from torch.utils._pytree import register_dataclass, tree_flatten, tree_unflatten
from torch.utils.flop_counter import flop_registry

from unimm.nn.attention import Visibility
from unimm.nn.span_attention import SpanTiles
from unimm.nn.span_tiles import KeyLists
from unimm.training.gpu_kernels import WHOLE, Counting

for _kind in (Visibility, SpanTiles, KeyLists):  # what a layer is told of its batch is traced, too
    register_dataclass(_kind)

_KERNELS = {*flop_registry, *WHOLE}  # which no compiler generates


class CompiledSizes:
    """Lets modules keep and take what compiled ones would.

    Args:
        counting: of the bytes that live.
    """

    def __init__(self, counting: Counting) -> None:
        self._counting = counting
        self._traced: dict[object, Callable[..., Any]] = {}

    def replace_forward(self, module: nn.Module) -> None:
        """Make a module run so; modules of one kind and size are traced once."""
        original = copy.copy(module)
        module.forward = lambda *args: self._run(original, args)

    def _run(self, module: nn.Module, args: tuple[Any, ...]) -> Any:
        leaves, structure = tree_flatten(args)
        weights = dict(module.named_parameters())
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]

        def forward(weights: dict[str, Tensor], tensors: list[Tensor]) -> Any:
            given = iter(tensors)
            whole = [next(given) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
            return functional_call(module, weights, tree_unflatten(whole, structure))

        inputs = [*weights.items(), *enumerate(tensors)]
        sizes = tuple((name, x.shape, x.dtype, x.requires_grad) for name, x in inputs)
        key = (type(module), structure, sizes, torch.is_grad_enabled())
        if key in self._traced:
            return self._traced[key](weights, tensors)
        self._traced[key] = aot_function(
            forward, self._compile, partition_fn=_cut, decompositions=select_decomp_table()
        )
        with self._counting(False):  # tracing takes nothing; the graph below counts for itself
            return self._traced[key](weights, tensors)

    def _compile(self, gm: fx.GraphModule, example_inputs: Any) -> Callable[[list[Any]], Any]:
        runner = _Runner(gm, self._counting)

        def run(args: list[Any]) -> Any:
            return runner.boxed_run(args)

        # What was kept may go while the backward runs.
        run._boxed_call = True  # pyright: ignore[reportFunctionMemberAccess]
        return run


def _cut(joint: fx.GraphModule, inputs: Any, **settings: Any) -> Any:
    joint_graph_passes(joint)
    return min_cut_rematerialization_partition(joint, inputs, **settings)


class _Runner(fx.Interpreter):
    """Runs a compiler's graph; what its generated kernels pass on within themselves takes nothing.

    Products and attention are kernels of their own: what they read and write is there as a whole,
    and so is what the graph gives back.
    """

    def __init__(self, graph: fx.GraphModule, counting: Counting) -> None:
        super().__init__(graph)
        self._counting = counting
        self._whole: set[fx.Node] = set()
        for node in graph.graph.nodes:
            is_kernel = isinstance(node.target, OpOverload) and (
                node.target.overloadpacket in _KERNELS
            )
            if is_kernel or node.op == "output":
                for whole in (node, *node.all_input_nodes):
                    self._mark(whole)

    def _mark(self, node: fx.Node) -> None:
        """A tensor that is there as a whole, and what it may be a view of."""
        self._whole.add(node)
        if isinstance(node.target, OpOverload) and node.target.is_view:
            self._mark(node.all_input_nodes[0])

    def run_node(self, n: fx.Node) -> Any:
        """Run one operation."""
        with self._counting(n in self._whole):
            return super().run_node(n)
