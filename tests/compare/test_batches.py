"""Predictions across batch sizes on real runs."""

from neuralmech.compare.gather.analysis import compare_runs
from neuralmech.compare.gather.options import Options
from neuralmech.compare.gather.runs import find_runs
from neuralmech.compare.measure.batches import batch_pairs, predict_batches


def test_one_batch_size_predicts_another_and_the_error_grows(run):
    """The runs share their start; later they are at different places, and the curve says so."""
    folders = [
        run(
            data={"name": "synthetic", "shape": [5], "classes": 3, "size": 400, "batch_size": size},
            optim={"lr": 0.05, "weight_decay": 1e-2},
            track={"noise": 1},
            train={"steps": 200},
        )
        for size in (8, 32, 8)
    ]
    jobs = [(f, {"data.batch_size": s, "seed": k}) for f, s, k in zip(folders, (8, 32, 8), (0, 0, 1), strict=True)]
    found = predict_batches(jobs)
    assert set(zip(found.table["from_batch"], found.table["to_batch"], strict=True)) == {(8, 32), (32, 8)}
    assert set(found.table["family"]) == {"rescale"}
    assert (found.table["seed"] == 0).all()
    for curve in found.curves:
        assert curve.error[0] == 0
        assert curve.error[1:20].max() < 1e-2 < 1  # the drive is right; it is the trajectories that part
        assert curve.error[-1] > curve.error[1]


def test_a_damaged_measurement_leaves_out_its_pairs_alone(run, flip):
    """Nobody but these predictions reads it, where no law is asked for that does."""
    sizes = (8, 16, 32)
    for size in sizes:
        folder = run(data={"batch_size": size}, track={"noise": 1, "block": 8})
        (folder / ".hydra").mkdir()
    flip(folder / "record.h5", "charges/rescale/gradient_mean")
    found = compare_runs(find_runs(folder.parent), Options(laws=("discrete",), figures=False))
    assert (found.runs["reason"] == "").all()
    assert set(found.comparison["data.batch_size"]) == set(sizes)
    pairs = set(zip(found.batches.table["from_batch"], found.batches.table["to_batch"], strict=True))
    assert {(8, 16), (16, 8)} <= pairs
    assert not any(source == 32 for source, _ in pairs)
    (note,) = [note for note in found.notes if "another batch size" in note]
    assert f"{folder / 'record.h5'} is damaged" in note


def test_pairs_differ_by_batch_size_alone():
    jobs = [("a", {"data.batch_size": 8, "seed": 0}), ("b", {"data.batch_size": 16, "seed": 0})]
    jobs += [("c", {"data.batch_size": 16, "seed": 1}), ("d", {"seed": 0})]
    assert [(a, b) for a, b, _ in batch_pairs(jobs)] == [("a", "b"), ("b", "a")]


def test_runs_without_the_measurement_predict_nothing(run):
    folder = run()
    assert predict_batches([(folder, {"data.batch_size": 8}), (folder, {"data.batch_size": 9})]).table.empty
