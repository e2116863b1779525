"""Bugs in the network and its cache."""

from mutants.mutant import Mutant

MUTANTS = [
    Mutant("cache: peek keeps", "model/kv_cache.py", "return CacheView(self, _Places(rows, starts, width), columns)",
           "self.lengths[rows] += width\n        return CacheView(self, _Places(rows, starts, width), columns)",
           "model/test_kv_cache.py"),
    Mutant("cache: what was peeked at is seen", "model/kv_cache.py", ".masked_fill(order >= places.ends[:, None], EMPTY)", "",
           "model/test_kv_cache.py"),
    Mutant("cache: rows are taken for adjacent", "model/kv_cache.py",
           "are_adjacent = torch.equal(rows, torch.arange(first, first + num_rows))", "are_adjacent = True", "model/test_kv_cache.py"),
    Mutant("cache: lengths do not advance", "model/kv_cache.py", "self.lengths[rows] += counts", "pass", "model/test_kv_cache.py"),
    Mutant("cache: rows are not cleared", "model/kv_cache.py", "        self.lengths[row] = 0\n", "", "model/test_kv_cache.py"),
    Mutant("cache: what a row held stays", "model/kv_cache.py", "            stored[row] = 0\n", "            pass\n",
           "generate/test_engine.py"),
    Mutant("rotary: sine negated", "model/transformer.py", "torch.cat((-sine, sine), dim=-1)",
           "torch.cat((sine, -sine), dim=-1)", "model/test_transformer.py"),
    Mutant("norm: the mean is not added back", "model/norm.py", "for_x.add_(mean.mul_(inverse))", "for_x",
           "model/test_norm.py"),
    Mutant("patches: columns before rows", "model/patchify.py", "x = x.permute(0, *grid_dims, 1, *patch_dims)",
           "x = x.permute(0, *grid_dims[::-1], 1, *patch_dims)", "model/test_patchify.py"),
]  # fmt: skip
