# Copyright (c) the monai_armed authors
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""The parts of packages that a bundle may use: whatever arguments they get, they run and fetch no program."""

from __future__ import annotations

__all__ = ["ATTRIBUTES", "HOLES", "PARTS"]


def _of(module: str, names: str) -> tuple[str, ...]:
    return tuple(f"{module}.{name}" for name in names.split())


PARTS: frozenset[str] = frozenset(
    (
        *_of("ignite.engine", "events"),
        *_of("ignite.handlers", "checkpoint early_stopping ema_handler param_scheduler tensorboard_logger"),
        *_of("ignite.handlers", "terminate_on_nan timing tqdm_logger"),
        *_of("ignite", "metrics"),
        *_of("monai", "engines handlers inferers losses metrics transforms"),
        *_of("monai.apps", "deepedit deepgrow detection generation nuclick pathology reconstruction vista3d"),
        *_of(
            "monai.data", "box_utils dataloader grid_dataset image_dataset image_reader image_writer iterable_dataset"
        ),
        *_of("monai.data", "meta_tensor samplers synthetic thread_buffer wsi_datasets wsi_reader"),
        *_of("monai.data.dataset", "ArrayDataset CacheDataset Dataset SmartCacheDataset ZipDataset"),
        *_of("monai.data.decathlon_datalist", "load_decathlon_datalist"),
        *_of("monai.data.utils", "decollate_batch list_data_collate no_collation pad_list_data_collate"),
        *_of("monai.data.utils", "partition_dataset partition_dataset_classes select_cross_validation_folds"),
        *_of("monai.networks", "blocks layers nets schedulers"),
        *_of("monai.networks.utils", "copy_model_state one_hot"),
        *_of("monai.optimizers", "lr_scheduler novograd utils"),
        *_of("monai.utils.misc", "ensure_tuple ensure_tuple_rep first set_determinism"),
        *_of("monai_armed", "data engines handlers inferers losses metrics networks optimizers transforms"),
        *_of("monai_armed.bundle", "caller.bundle_root erasure evaluate kept_predictions model_file models prepare"),
        *_of("monai_armed.bundle", "processes training training_record z_predictor_training"),
        *_of("monai_armed.studies.ad_mri", "inference partitions saliency saliency_data saliency_maps scores sites"),
        *_of("monai_armed.studies.cells", "batches evaluation images inference partitions scores"),
        *_of("monai_armed.studies.mci", "features partitions"),
        *_of("monai_armed.studies.spirals", "points simulator"),
        *_of("numpy", "abs arange argmax array asarray bool_ concatenate exp eye floor full linspace log max mean min"),
        *_of("numpy", "float16 float32 float64 int16 int32 int64 ones prod round sqrt stack sum uint8 unique zeros"),
        *_of("operator", "eq ge gt le lt ne"),
        *_of("torch", "Generator Size Tensor abs arange argmax as_tensor cat clamp device exp eye from_numpy full"),
        *_of("torch", "linspace log manual_seed mean ones rand randn sigmoid softmax sqrt stack sum tensor zeros"),
        *_of("torch.cuda", "current_device device_count is_available set_device"),
        *_of("torch.distributed", "barrier destroy_process_group get_rank get_world_size init_process_group"),
        *_of("torch.distributed", "is_available is_initialized"),
        *_of("torch.nn", "functional init modules parallel.distributed parallel.data_parallel"),
        *_of("torch", "optim"),
        *_of("torch.utils.data", "dataloader dataset distributed sampler"),
    )
)
"""Modules, of which any class and function may be used, and single classes and functions."""

HOLES: frozenset[str] = frozenset(
    (
        *_of("ignite.metrics", "gan"),  # fetches Inception
        *_of("monai.data.iterable_dataset", "CSVIterableDataset"),  # pandas fetches what is an address
        *_of("monai.handlers", "clearml_handlers mlflow_handler trt_handler"),  # send to servers; loads programs
        *_of("monai.losses", "perceptual"),  # fetches networks and their code
        *_of(
            "monai.networks.nets", "resnet.get_pretrained_resnet_medicalnet torchvision_fc transchex"
        ),  # fetch weights
        *_of("monai.transforms", "utils_create_transform_ims"),  # fetches images
        *_of("monai_armed.transforms", "register_to_template skull_strip"),  # leave the work to other programs
    )
)
"""What lies in these modules and does run or fetch programs."""

ATTRIBUTES: frozenset[str] = frozenset(
    "T adversary best_metric_epoch clusters columns cpu cuda data decoder detach device dtype encoder epoch eval float "
    "flatten get get_last_lr half head index int item items iteration keys last_lr long max mean metrics min names "
    "named_parameters ndim network numel numpy optimizer output param_groups parameters permute report reshape run "
    "shape size split squeeze startswith endswith state state_dict load_state_dict strip sum to train type unsqueeze "
    "values view".split()
)
"""Attributes that may be asked of objects of which it is not known what they are."""
