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
    Mutant("cache: it is larger before it has grown", "model/kv_cache.py",
           "        shape = (rows, slots, self.config.kv_heads, self.config.head_dim)\n        for stored in",
           "        self.lengths, self._facts = _grown(self.lengths, (rows,)), _grown(self._facts, (rows, slots, 3))\n"
           "        shape = (rows, slots, self.config.kv_heads, self.config.head_dim)\n        for stored in",
           "model/test_kv_cache.py -k without_memory"),
    Mutant("cache: a layer has keys and no values", "model/kv_cache.py",
           "            keys, values = _zeros(like, shape), _zeros(like, shape)\n            self._keys.append(keys)\n            self._values.append(values)\n",
           "            self._keys.append(_zeros(like, shape))\n            self._values.append(_zeros(like, shape))\n",
           "model/test_kv_cache.py -k first_layers"),
    Mutant("head: tokens are chosen among eight bits", "model/transfusion.py", "torch.is_grad_enabled() or not torch.is_autocast", "True or not torch.is_autocast",
           "model/test_transfusion.py -k autocast"),
    Mutant("flex: all scores are held", "model/transformer.py", 'device.type == "cpu" or torch.compiler.is_compiling()', "True",
           "model/test_transfusion.py -k flex"),
    Mutant("linear: compiled, it asks for a number of rows", "model/linear.py", "is_inference and is_eager and rows",
           "is_inference and rows", "model/test_transfusion.py -k versions"),
]  # fmt: skip
