"""The report, from a run's folder with what others wrote into it."""

from pathlib import Path

import pytest
from PIL import Image

from transfusion.report import _curves, _sheets  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize("value", ["null", '"<b>"', "true", "NaN", "Infinity", "-1e999", "[1]", "1" + "0" * 400])
def test_a_curve_is_drawn_from_numbers(tmp_path: Path, value: str) -> None:
    rows = [
        '{"step": 1, "loss/text": 1.0}', f'{{"step": 2, "loss/text": {value}}}', '{"step": 3, "loss/text": 0.5}',
        f'{{"step": 4, "loss/other": {value}}}',
    ]  # fmt: skip
    (tmp_path / "metrics.jsonl").write_text("\n".join(rows))
    assert "loss/text: 1 → 0.5, 3 steps" in _curves(tmp_path) and "other" not in _curves(tmp_path)
    (tmp_path / "metrics.jsonl").write_text(rows[3])
    assert "no metrics" in _curves(tmp_path)


def test_sheets_are_those_of_steps_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "samples").mkdir()
    for name in ("step_100000000.png", "step_00000009.png"):
        Image.new("RGB", (2, 2)).save(tmp_path / "samples" / name)
    (tmp_path / "samples" / "step_by_step.png").write_bytes(b"mine")
    found = _sheets(tmp_path, [])
    assert found.count("<tr>") == 2 and found.index("step 9<") < found.index("step 100000000<")
