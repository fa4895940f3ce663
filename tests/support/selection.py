"""What `make test` leaves to `make matrix`: the same question on further architectures, and whatever takes long.

`make test` runs what has neither marker, `make matrix` what has one: together they run every test once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import pytest

from tests.support.checkout import ROOT

#: One architecture of each structure. What a test asks of one of these, `make test` does not ask of any other.
STRUCTURES = {"encoder": "bert", "decoder": "llama", "encoder-decoder": "bart"}

#: By file below tests/, the tests that take more than about five seconds on one core.
SLOW: dict[str, tuple[str, ...]] = {
    "adaptation/test_compile.py": ("test_an_adapted_model_is_one_graph",),
    "compose/test_schema.py": ("test_every_limit_is_enforced_from_the_command_line_in_the_same_words",),
    "output/test_libraries.py": (
        "test_a_run_and_what_follows_print_lines_of_ours_alone",
        "test_a_worker_process_prints_lines_of_ours_alone",
    ),
    "output/test_terminal.py": ("test_every_command_in_every_encoding",),
    "project/test_install.py": (
        "test_a_method_of_the_user_composes_with_the_shipped_configuration",
        "test_the_page_of_a_study",
    ),
    "project/test_speed.py": (
        "test_a_short_measurement_is_written_whole",
        "test_the_measurement_on_a_gpu_needs_torch_transformers_and_peft_alone",
    ),
    "project/test_tutorial.py": ("test_its_commands_run_and_print_what_it_says",),
    "sweeps/test_launch.py": ("test_real_jobs_of_a_users_own_files",),
    "tasks/test_sources.py": ("test_concurrent_jobs_share_one_cache",),
    "training/test_budget_memory_fit.py": (
        "test_a_fitted_run_gives_the_result_of_the_unfitted_one",
        "test_the_prediction_is_what_the_allocator_reports",
    ),
    "cli/test_hub_commands.py": ("test_in_processes_of_their_own",),
    "cli/test_resume.py": ("test_a_run_goes_on_from_another_folder",),
    "runs/test_merged_folder.py": ("test_a_process_without_unipet_loads_it_to_the_same_outputs",),
    "runs/test_resume.py": (
        "test_a_run_killed_twice_ends_as_an_undisturbed_one",
        "test_killed_anywhere_else",
    ),
    "runs/test_resume_tracking.py": ("test_wandb_offline",),
    "sweeps/test_disasters.py": (
        "test_a_sweep_that_is_killed_again_and_again_ends_as_if_nobody_had",
        "test_two_identical_sweeps_at_the_same_moment_share_the_work",
        "test_a_record_that_a_disk_damaged_is_no_result",
        "test_a_full_disk_fails_jobs_and_leaves_no_half_of_a_file",
    ),
    "sweeps/test_isolation.py": (
        "test_each_fails_alone_with_its_reason",
        "test_only_what_is_not_the_job_s_fault_is_tried_again",
        "test_the_first_failure_can_end_the_sweep",
        "test_a_process_that_is_stopped_hangs",
        "test_cancelling_lets_workers_write_and_end",
        "test_killing_the_command_ends_its_workers",
        "test_a_signal_ends_it_in_order",
    ),
    "sweeps/test_moved.py": ("test_a_run_goes_on_from_its_resume_point_in_the_new_place",),
    "sweeps/test_contents.py": ("test_data_that_changed_between_two_commands_make_other_runs",),
}


def mark(items: Iterable[pytest.Item]) -> None:
    """Give each test the markers that its architecture and its row in SLOW ask for."""
    questions: dict[str, list[tuple[pytest.Item, str]]] = defaultdict(list)
    for item in items:
        file = item.path.relative_to(ROOT / "tests").as_posix()
        if name_of(item) in SLOW.get(file, ()):
            item.add_marker("slow")
        if architecture := parameters(item).get("arch"):
            questions[question(item)].append((item, str(architecture)))
    for asked in questions.values():
        here = set(STRUCTURES.values()) & {architecture for _, architecture in asked}
        for item, architecture in asked:
            if here and architecture not in here:
                item.add_marker("matrix")


def name_of(item: pytest.Item) -> str:
    """The name of the test's function."""
    return item.name.partition("[")[0]


def parameters(item: pytest.Item) -> dict[str, object]:
    """The parameters of a test; none if it has none."""
    callspec = getattr(item, "callspec", None)
    return dict(callspec.params) if callspec else {}


def question(item: pytest.Item) -> str:
    """What a test asks, whatever the architecture: its function and its other parameters."""
    others = {name: value for name, value in parameters(item).items() if name != "arch"}
    return f"{item.nodeid.partition('[')[0]} {others!r}"
