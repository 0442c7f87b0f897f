"""Tests of guests that are not run, with the reason: names in the manner of the shell."""

from __future__ import annotations

JOBLIB = {
    "test_auto_memmap_on_arrays_from_generator*": "wants the class memmap: arrays are views of the store",
    "test_memmapping_*": "counts files of joblib's memory maps",
    "test_nested_backend_in_sequential*-zmreg-None*": "without n_jobs it is all CPUs, as with joblib for Dask",
    "test_nested_loop[[]back_compat_backend-zmreg]": "a process of loky that nobody has told of zmreg",
    "test_parallel_with_interactively_defined_functions*": "starts a script that registers no back end",
    "test_parallel_with_unpicklable_functions_in_args*": "starts a script that registers no back end",
}

DASK = {
    "test_pool_kwarg*": "`pool=` is a pool of threads",
    "test_interrupt*": "tasks and test share a lock",
    "test_contextvars*": "tasks and test share a barrier of threads",
    "test_context_aware_warnings*": "tasks and test share a barrier of threads",
    "test_traverse_false": "wants the very object back, not a copy",
    "test_compute_array_bag": "wants no default scheduler",
    "test_persist_array_bag": "wants no default scheduler",
    "test_get_scheduler": "wants no default scheduler",
    "test_num_workers_config[[]threads]": "counts threads by what callbacks are told",
    "test_nested_schedulers": "a callback of the inner graph is called where that runs: in a worker",
    "test_array_cumreduction_axis[[]blelloch-None-*-*cumprod]": "wants a task's warning, which is the worker's",
    "test_merge_combine_similar[[]2-3]": "counts a graph's keys when frames are shuffled over the disk",
    "test_nanquantile_all_nan": "wants a task's warning, which is the worker's",
}
