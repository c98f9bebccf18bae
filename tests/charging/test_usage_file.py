"""A provider's CSV: what is read of it, and what is said of one that is wrong."""

from __future__ import annotations

from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from gateway.charging.usage_file import MOST_PROBLEMS, BadUsageFile, columns, read

ZONE = ZoneInfo("Asia/Shanghai")
MAP = "day=date,model=model,input=in,output=out"


def lines(tmp_path: Path, text: str | bytes, mapping: str = MAP) -> dict[tuple[str, str], dict[str, int]]:
    path = tmp_path / "usage.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return {key: dict(counts) for key, counts in read(path, columns(mapping), ZONE).items()}


def test_lines_of_a_day_and_model_are_added_up(tmp_path: Path) -> None:
    text = "\ufeffmodel,date,project,in,out\nm,2026-11-01,x,10,1\nm,2026-11-01,y,5,2\nn,2026-11-02,x,7,0\n"
    assert lines(tmp_path, text) == {
        ("2026-11-01", "m"): {"input": 15, "output": 3},
        ("2026-11-02", "n"): {"input": 7, "output": 0},
    }


@pytest.mark.parametrize(
    ("when", "day"),
    [
        ("2026-11-01", "2026-11-01"),
        ("2026-11-01T23:00:00", "2026-11-01"),
        ("2026-11-01T23:00:00Z", "2026-11-02"),
        ("2026-11-01 23:00:00+08:00", "2026-11-01"),
    ],
)
def test_a_time_is_of_the_day_it_has_here(tmp_path: Path, when: str, day: str) -> None:
    assert list(lines(tmp_path, f"date,model,in,out\n{when},m,1,1\n")) == [(day, "m")]


def test_one_column_may_be_several_of_our_buckets() -> None:
    of = columns("day=d, model=m, input+input_cached=prompt")
    assert of.buckets == {"input+input_cached": ("input", "input_cached")}
    assert of.quantities == {"input+input_cached": "prompt"}


@pytest.mark.parametrize(
    ("mapping", "said"),
    [
        ("day", "'day' is not"),
        ("day=,model=m,input=i", "'day=' is not"),
        ("day=d,day=e,model=m,input=i", "has day twice"),
        ("day=d,input=i", "needs day, model and at least one bucket"),
        ("day=d,model=m", "needs day, model and at least one bucket"),
        ("day=d,model=m,tokens=i", "there is no bucket 'tokens'; there are input, input_cached"),
        ("day=d,model=m,input=i,input+output=j", "has bucket input twice"),
    ],
)
def test_a_mapping_that_is_wrong(mapping: str, said: str) -> None:
    with pytest.raises(BadUsageFile, match=said):
        columns(mapping)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("date,model,in\n", "line 1: there is no column 'out'; there are date, model, in"),
        ("", "line 1: there is no column 'date'; there are none"),
        ("date,model,in,out,out\n", "line 1: there are several columns 'out'"),
        ("date,model,in,out\n", "has no lines after its heading"),
        ("date,model,in,out\n2026-11-01,m,1,1\n2026-13-01,m,1,1\n", "line 3: date is a date or time such as"),
        ("date,model,in,out\n9999-12-31T23:00Z,m,1,1\n", "line 2: date is a date or time such as"),
        ("date,model,in,out\n0001-01-01,m,1,1\n", "line 2: date is a date or time such as"),
        ("date,model,in,out\n2026-11-01,m,-1,1\n", "line 2: in is a whole number such as 1234, not '-1'"),
        ("date,model,in,out\n2026-11-01,m,1.5,1\n", "line 2: in is a whole number such as 1234, not '1.5'"),
        ('date,model,in,out\n2026-11-01,m,"1,000",1\n', "line 2: in is a whole number such as 1234, not '1,000'"),
        ("date,model,in,out\n2026-11-01,m,1\n", "line 2: out is empty"),
        ("date,model,in,out\n2026-11-01,,1,1\n", "line 2: model is empty"),
        (b"date,model,in,out\n2026-11-01,\xff,1,1\n", "is no CSV in UTF-8"),
        ('date,model,in,out\n2026-11-01,"m"x,1,1\n', "is no CSV in UTF-8"),
    ],
)
def test_a_file_that_is_wrong(tmp_path: Path, text: str | bytes, said: str) -> None:
    with pytest.raises(BadUsageFile, match=said):
        lines(tmp_path, text)


def test_the_first_problems_are_told_together(tmp_path: Path) -> None:
    with pytest.raises(BadUsageFile) as caught:
        lines(tmp_path, "date,model,in,out\n" + "x,m,1,1\n" * 100)
    told = str(caught.value).splitlines()
    assert len(told) == MOST_PROBLEMS
    assert told[1].startswith(f"{tmp_path}/usage.csv: line 3: date")
