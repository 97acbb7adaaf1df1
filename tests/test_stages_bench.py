"""The benches of the stages: a quick run takes few samples of each."""

from __future__ import annotations

import pytest

from bench.stages import STAGES, command


@pytest.mark.parametrize("name", STAGES)
def test_a_quick_run_takes_a_hundredth_of_the_samples(name: str) -> None:
    whole, quick = command(name, quick=False), command(name, quick=True)
    place = whole.index("--samples") + 1
    samples = int(whole[place])
    assert int(quick[place]) == (8 if name == "models" else samples // 100)
    assert [*quick[:place], *quick[place + 1 :]] == [*whole[:place], *whole[place + 1 :]]


def test_every_bench_takes_what_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its parser knows the arguments: it ends with their explanation, not with an error."""
    import importlib

    for name in STAGES:
        _, _, module, *arguments = command(name, quick=True)
        monkeypatch.setattr("sys.argv", [module, *arguments, "--help"])
        with pytest.raises(SystemExit) as ended:
            importlib.import_module(module).main()
        assert ended.value.code == 0
