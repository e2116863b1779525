"""Bugs in mixtures."""

from mutants.mutant import Mutant

TEST = "data/test_mixture.py"
MUTANTS = [
    Mutant("mixture: weights are by records", "data/mixture.py", "return (source.lengths * (told / source.lengths[places].sum())).astype(np.float32)",
           "return np.ones(source.size, np.float32)", f"{TEST} -k shares_of_slots"),
    Mutant("mixture: lengths are those of outlines", "data/mixture.py", "source.lengths * (told / source.lengths[places].sum())",
           "source.lengths * (1.0 if told else 0.0)", f"{TEST} -k shares_of_slots"),
    Mutant("mixture: documents come by their beginnings", "data/order.py", "self.tracks[track].middle(number) - self.begins",
           "self.tracks[track].begin(number) - self.begins", f"{TEST} -k middles_of_documents"),
    Mutant("mixture: a walk goes on with the weights before", "data/order.py", "if number != self._number or number == self._end:",
           "if number != self._number:", f"{TEST} -k begins_at_its_place"),
    Mutant("mixture: a change of weights begins all sources anew", "data/order.py",
           "heads = self._begun[-1].heads_at(first) if self._begun else", "heads =", f"{TEST} -k begins_at_its_place"),
    Mutant("mixture: weights change by places and not by steps", "data/mixture.py", "Phase(step * config.batch_size, weights)",
           "Phase(step, weights)", f"{TEST} -k waits_for_its_step"),
    Mutant("mixture: records are told more often than they may be", "data/forecast.py",
           "count <= (most := own.max_repeats * part.size)", "count <= (most := 9 * own.max_repeats * part.size)",
           f"{TEST} -k more_repeats"),
    Mutant("mixture: late changes are passed over", "data/forecast.py", "if step >= steps]", "if step > steps]",
           f"{TEST} -k more_repeats"),
    Mutant("mixture: a place forgets what came before its phase", "data/order.py", "number - self.first + sum(self.heads)",
           "number - self.first", f"{TEST} -k begins_at_its_place"),
    Mutant("mixture: slots of sources are forgotten at a stop", "train/state.py", "self.held_out, self.records, self.slots, self.planned",
           "self.held_out, self.records, None, self.planned", f"{TEST} -k goes_on"),
    Mutant("mixture: losses of sources choose the best", "evaluate/losses.py", 'for name, value in losses.items() if "/" not in name}',
           "for name, value in losses.items()}", f"{TEST} -k goes_on"),
    Mutant("data: changed data are refused whatever is told", "run.py", "found=source.found, run=run, is_change_wanted=is_change_wanted",
           "found=source.found, run=run", f"{TEST} -k changed_data"),
    Mutant("data: losses on other data choose the best", "run.py", "bool(known) and not state.forgets_best", "bool(known)",
           f"{TEST} -k changed_data"),
]  # fmt: skip
