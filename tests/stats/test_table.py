"""Results as CSV: what is read, what is refused, and how the refusal reads."""

import math
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tombola.errors import InvalidResults
from tombola.stats import LevelResults, Results, Run, Verdict, drop_incomplete, judge, read_csv, write_csv

HEADER = "replicate,density,arm,test_accuracy\n"
TABLE = HEADER + "0,1,dense,0.97\n0,0.2,ticket,0.975\n1,1,dense,0.96\n1,0.2,ticket,0.965\n"
EXPECTED = Results((0, 1), ((Run(0.97),), (Run(0.96),)), (LevelResults(0.2, {"ticket": (Run(0.975), Run(0.965))}),))


@pytest.mark.parametrize(
    "text",
    [
        TABLE,
        TABLE.replace("dense", "ticket"),
        TABLE.replace("dense", "Dense").replace("ticket", "TICKET"),
        "\ufeff" + TABLE,
        TABLE.replace("\n", "\r\n"),
        TABLE.replace("\n", "\r"),
        TABLE.replace("\n", "\n\n") + "\n , , ,\n",
        TABLE.replace(",", " , "),
        TABLE.replace(",", ',"').replace("\n", '"\n').replace(',"', '","').replace(',"', ",").replace('"', ""),
        TABLE.replace("\n", ",,\n"),
        TABLE.replace("0.2,", "0.20,").replace("1,dense", "1.0,dense"),
        TABLE.replace("replicate,density,arm,test_accuracy", "Replicate,DENSITY, Arm,Test_Accuracy"),
        TABLE.rstrip("\n"),
    ],
)
def test_the_same_table_in_other_clothes(text: str, tmp_path: Path) -> None:
    assert read_csv(text) == EXPECTED
    path = tmp_path / "results.csv"
    path.write_bytes(text.encode())
    assert read_csv(path) == EXPECTED
    assert read_csv(str(path)) == EXPECTED


def test_columns_in_any_order_and_quoted() -> None:
    rows = [line.split(",") for line in TABLE.splitlines()]
    text = "\n".join(",".join(f'"{cell}"' for cell in reversed(row)) for row in rows) + "\n"
    assert read_csv(text) == EXPECTED


def test_levels_are_sorted_and_dense_runs_keep_their_order() -> None:
    text = HEADER + "3,0.1,ticket,0.9\n3,0.5,ticket,0.91\n3,0.5,reinit,0.8\n3,1,ticket,0.95\n3,1,dense,0.94\n"
    results = read_csv(text)
    assert results.densities == (0.5, 0.1)
    assert results.dense == ((Run(0.95), Run(0.94)),)
    assert results.levels[0].controls == ("reinit",)


def test_optional_columns() -> None:
    text = (
        "replicate,density,arm,test_accuracy,early_stop_iteration,censored,test_accuracy_at_early_stop\n"
        "0,1,dense,0.97,3700.0,True,0.96\n0.0,0.2,ticket,0.975,,,nan\n"
    )
    results = read_csv(text)
    assert results.dense == ((Run(0.97, 0.96, 3700, True),),)
    assert results.levels[0].arms["ticket"] == (Run(0.975, None, None, False),)


@pytest.mark.parametrize("cell", ["nan", "NaN", ""])
def test_a_diverged_run_drops_its_replicate(cell: str) -> None:
    results = read_csv(TABLE.replace("0.975", cell))
    assert results.levels[0].arms["ticket"] == (None, Run(0.965))
    kept, dropped = drop_incomplete(results)
    assert kept.replicates == (1,)
    assert "Replicate 0 is left out" in dropped[0]
    kept, dropped = drop_incomplete(read_csv(TABLE.replace("0.96\n", cell + "\n")))
    assert kept.replicates == (0,)
    assert "Replicate 1 is left out at every level: no result (diverged or missing) for dense." in dropped


def test_unequal_replicates_are_dropped() -> None:
    results = read_csv(TABLE + "2,1,dense,0.96\n3,0.2,ticket,0.9\n")
    assert results.replicates == (0, 1, 2, 3)
    kept, dropped = drop_incomplete(results)
    assert kept == EXPECTED
    assert len(dropped) == 2
    assert judge(results, margin=0.002).verdict is Verdict.CANNOT_TELL


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TABLE + "1,0.2,ticket,0.9\n", r"lines 5 and 6 both give replicate 1, density 0\.2, arm 'ticket'"),
        (TABLE.replace("0.975", "97.5"), r"line 3: test_accuracy is 97\.5, which looks like percent; divide by 100"),
        (TABLE.replace("0.975", "97.5 %"), r"line 3: .* looks like percent; divide by 100"),
        (TABLE.replace("0.975", "0.5%"), r"line 3: .* looks like percent; divide by 100"),
        (TABLE.replace("0.975", "-0.1"), r"line 3: test_accuracy is -0\.1\. An accuracy is a fraction in \[0, 1\]"),
        (TABLE.replace("0.975", "inf"), "line 3: test_accuracy is 'inf', which is not a number"),
        (TABLE.replace("0.975", "n/a"), "line 3: test_accuracy is 'n/a', which is not a number"),
        (TABLE.replace("0.975", "0.9_7"), "line 3: .* not a number"),
        (TABLE.replace("1,0.2", "1,20"), r"line 5: density is 20\. It is the fraction of weights kept, in \(0, 1\]"),
        (TABLE.replace("1,0.2", "1,0"), "line 5: density is 0"),
        (TABLE.replace("1,0.2", "1,-0.2"), "line 5: density is -0.2"),
        (TABLE.replace("1,0.2", "1,nan"), "line 5: density is 'nan', which is not a number"),
        (TABLE.replace("1,0.2", "1,"), "line 5: density is empty"),
        (TABLE.replace("\n1,0.2", "\n,0.2"), "line 5: the replicate is empty"),
        (TABLE.replace("\n1,0.2", "\nfirst,0.2"), "line 5: replicate is 'first'. Give a whole number"),
        (TABLE.replace("\n1,0.2", "\n1.5,0.2"), "line 5: replicate is '1.5'"),
        (TABLE.replace("\n1,0.2", "\n-1,0.2"), "line 5: replicate is '-1'"),
        (TABLE.replace("\n1,0.2", "\n" + 5000 * "9" + ",0.2"), "line 5: replicate is '9999"),
        (TABLE.replace("0.2,ticket,0.965", "0.2,,0.965"), "line 5: the arm is empty"),
        (TABLE + "0,1,reinit,0.9\n", "line 6: the control 'reinit' is at density 1"),
        (TABLE + "0,0.2,dense,0.9\n", "line 6: arm dense is at density 0.2"),
        (TABLE + "0,0.1,reinit,0.9\n", "line 6: density 0.1 has no ticket, only reinit"),
        (TABLE + "0,0.1,ticket\n", "line 6 has 3 cells, and the header has 4 columns"),
        (TABLE + "0,0.1,ticket,0.9,0.8\n", "line 6 has 5 cells"),
        (
            TABLE.replace("density", "sparsity"),
            "lacks 'density' and has unknown 'sparsity'. Expected columns: replicate",
        ),
        (TABLE.replace("arm,", "arm,arm,"), "repeats 'arm'"),
        (TABLE.replace(",", ";"), "seem to be separated by ';'; use commas"),
        (TABLE.replace(",", "\t"), "use commas"),
        (HEADER, "has no dense run. Add rows with arm dense and density 1"),
        (HEADER + "0,0.2,ticket,0.9\n", "has no dense run"),
        (HEADER + "0,1,dense,0.9\n", "has no ticket below density 1. Add rows with arm ticket"),
        (HEADER + "0,1,dense,0.9\n0,0.5,reinit,0.9\n", "has no ticket below density 1"),
        ("", "the text is empty. Give a CSV with the columns replicate, density, arm, test_accuracy; optional:"),
        ("\n \n", "is empty"),
        ("\ufeff\n", "is empty"),
        ("PK\x03\x04\0\0\n", "not a text file"),
        (HEADER + '0,1,"' + 200_000 * "x" + '",0.9\n', "not a CSV file: field larger"),
        (
            "replicate,density,arm,test_accuracy,censored\n0,1,dense,0.9,perhaps\n",
            "line 2: censored is 'perhaps'. Write true or false",
        ),
        (
            "replicate,density,arm,test_accuracy,early_stop_iteration\n0,1,dense,0.9,12.5\n",
            "line 2: early_stop_iteration is '12.5'. Give a whole number",
        ),
        (
            "replicate,density,arm,test_accuracy,test_accuracy_at_early_stop\n0,1,dense,0.9,91\n",
            "line 2: test_accuracy_at_early_stop is 91, which looks like percent",
        ),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_line(text: str, message: str) -> None:
    with pytest.raises(InvalidResults, match=message):
        read_csv(text)


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidResults, match=r"there is no file .*missing\.csv"):
        read_csv(tmp_path / "missing.csv")
    with pytest.raises(InvalidResults, match="is a folder"):
        read_csv(tmp_path)
    with pytest.raises(InvalidResults, match="cannot be read"):
        read_csv("a\0b")
    for name, content, message in (
        ("empty.csv", b"", "is empty"),
        ("binary.csv", bytes(range(256)), "not a text file"),
        ("utf16.csv", TABLE.encode("utf-16"), "not a text file"),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(InvalidResults, match=message):
            read_csv(path)


def test_a_name_that_would_steer_the_terminal_is_refused() -> None:
    with pytest.raises(InvalidResults, match=r"line 3: the arm '\\x1b\[31mred' has control characters"):
        read_csv("replicate,density,arm,test_accuracy\n0,1,ticket,0.9\n0,0.5,\x1b[31mred,0.9\n")


fractions = st.floats(0, 1)
runs = st.builds(Run, fractions, st.none() | fractions, st.none() | st.integers(0, 10**9), st.booleans())


@st.composite
def studies(draw: st.DrawFn) -> Results:
    replicates = tuple(draw(st.lists(st.integers(0, 10**6), min_size=1, max_size=4, unique=True)))
    densities = draw(st.lists(st.floats(0, 1, exclude_min=True, exclude_max=True), min_size=1, max_size=3, unique=True))
    names = st.sampled_from(["reinit", "shuffle", "a,b", 'say "x"', "two words", "Größe"])
    cells = st.lists(st.none() | runs, min_size=len(replicates), max_size=len(replicates)).map(tuple)
    levels = tuple(
        LevelResults(d, {name: draw(cells) for name in ("ticket", *draw(st.lists(names, max_size=2, unique=True)))})
        for d in sorted(densities, reverse=True)
    )
    dense = [tuple(draw(st.lists(runs, max_size=3))) for _ in replicates]
    dense[0] = dense[0] or (draw(runs),)
    return Results(replicates, tuple(dense), levels)


@given(studies())
def test_writing_and_reading_gives_the_same_results(results: Results) -> None:
    text = write_csv(results)
    assert read_csv(text) == results
    assert write_csv(read_csv(text)) == text


def test_a_diverged_dense_run_survives_the_round_trip() -> None:
    results = Results((0,), ((Run(0.9), Run(math.nan)),), (LevelResults(0.2, {"ticket": (Run(0.9),)}),))
    again = read_csv(write_csv(results))
    assert again.dense[0][0] == Run(0.9)
    assert math.isnan(again.dense[0][1].test_accuracy)


def test_many_megabytes() -> None:
    rows = [
        f"{r},{d / 1000},{arm},0.9{r % 10}\n" for r in range(100) for d in range(1, 500) for arm in ("ticket", "reinit")
    ]
    text = HEADER + "".join(f"{r},1,dense,0.9\n" for r in range(100)) + "".join(rows)
    assert len(text) > 2**20
    start = time.perf_counter()
    results = read_csv(text)
    assert time.perf_counter() - start < 20
    assert (len(results.levels), len(results.replicates)) == (499, 100)
