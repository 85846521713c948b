import pytest
import torch

from unimm.nn.kv_cache import KVCache


def cache_of(rows: int = 3, max_length: int = 8) -> KVCache:
    return KVCache(depth=1, num_rows=rows, num_kv_heads=1, max_length=max_length, head_dim=2)


def write(cache: KVCache, rows: list[int], value: float, num_new: int = 1, *, is_causal=True):
    view = cache.view(rows, num_new, is_causal=is_causal)
    new = torch.full((len(rows), 1, num_new, 2), value)
    keys, values = view.update(0, new, -new)
    return view, keys[:, 0, :, 0], values[:, 0, :, 0]


def test_rows_of_different_length_see_only_their_own():
    cache = cache_of()
    cache.advance([0, 1, 2], [1, 3, 0])
    view, keys, values = write(cache, [0, 1, 2], 7.0)
    assert view.visibility.dense is not None
    assert view.visibility.dense[:, 0, 0].sum(1).tolist() == [2, 4, 1]
    assert [row.tolist().index(7.0) for row in keys] == [1, 3, 0]
    assert torch.equal(values, -keys)


def test_block_is_causal_or_sees_all_of_itself():
    cache = cache_of(2)
    cache.advance([0, 1], [2, 1])
    causal, full = (
        write(cache, [0, 1], 1.0, 3, is_causal=is_causal)[0].visibility.dense
        for is_causal in (True, False)
    )
    assert causal is not None and full is not None
    assert causal[:, 0].sum(2).tolist() == [[3, 4, 5], [2, 3, 4]]
    assert full[:, 0].sum(2).tolist() == [[5, 5, 5], [4, 4, 4]]


def test_equally_long_rows_that_see_all_need_no_mask():
    cache = cache_of(2)
    cache.advance([0, 1], [2, 2])
    view, keys, _ = write(cache, [0, 1], 1.0, 3, is_causal=False)
    assert view.visibility.dense is None and keys.shape[1] == 5
    assert write(cache, [0, 1], 1.0, 3, is_causal=True)[0].visibility.dense is not None


def test_a_cleared_cache_has_all_its_rows_again():
    cache = cache_of()
    write(cache, [0, 1, 2], 1.0)
    cache.advance([0, 1, 2], [1, 1, 1])
    cache.select([1])
    cache.mark([0])
    memory = cache.keys.data_ptr()
    cache.clear()
    assert cache.lengths == [0, 0, 0] and cache.is_marked == [False] * 3
    assert not cache.keys.any() and cache.keys.data_ptr() == memory


@pytest.mark.parametrize("rows", [[0, 1], [1, 2], [2, 0]])
def test_some_rows_are_written_and_the_others_stay(rows):
    cache = cache_of()
    write(cache, [0, 1, 2], 1.0)
    cache.advance([0, 1, 2], [1, 1, 1])
    _, keys, _ = write(cache, rows, 5.0)
    assert keys.tolist() == [[1.0, 5.0]] * 2
    other = ({0, 1, 2} - set(rows)).pop()
    assert cache.keys[0, other, 0, :2, 0].tolist() == [1.0, 0.0]


def test_rewind_forgets_and_refuses_to_go_forward():
    cache = cache_of(1)
    cache.advance([0], [4])
    marks = cache.mark([0])
    cache.advance([0], [2])
    cache.rewind([0], marks)
    assert cache.lengths == [4]
    with pytest.raises(ValueError, match="cannot rewind row 0 of 4 to 5"):
        cache.rewind([0], [5])


def test_too_long_a_row_names_both_lengths():
    cache = cache_of(1, max_length=4)
    cache.advance([0], [3])
    with pytest.raises(ValueError, match="5 positions do not fit a cache of 4"):
        cache.view([0], 2, is_causal=True)


def test_select_keeps_rows_in_order():
    cache = cache_of()
    cache.keys[0, :, 0, 0, 0] = torch.tensor([1.0, 2.0, 3.0])
    cache.advance([0, 1, 2], [1, 2, 3])
    cache.select([2, 0])
    assert cache.lengths == [3, 1]
    assert cache.keys[0, :2, 0, 0, 0].tolist() == [3.0, 1.0]
