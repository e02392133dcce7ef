"""What a shell offers when Tab is pressed."""

import pytest
from command_line import Call


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("pfa run mn", ["mnist"]),
        ("pfa run mnist cif", ["cifar10"]),
        ("pfa run mnist --algos bp,pfa", ["bp,pfa", "bp,pfa-o", "bp,pfa-l"]),
        ("pfa status --algos bp,b", []),
        ("pfa status --state f", ["failed"]),
        ("pfa runs list --recipe im", ["imagenet", "imagenette"]),
        ("pfa export --table e", ["epochs"]),
        ("pfa figures --only fig3,ta", ["fig3,table1"]),
        ("pfa bench --algos al", ["all"]),
        ("pfa data fetch m", ["mnist"]),
    ],
)
def test_names_are_completed(
    words: str, offered: list[str], call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_PFA_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
    done = call()
    assert (done.code, [line for line in done.out.split("\n") if line]) == (0, offered)
