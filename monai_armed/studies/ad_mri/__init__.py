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

"""Alzheimer's disease from T1-weighted MRI of many sites.

``monai_armed.studies.ad_mri.simulator`` can be run with ``python -m`` and is therefore not imported here.
"""

from __future__ import annotations

from .ceilings import ad_mri_ceilings
from .inference import images_to_predict
from .partitions import ad_mri_partitions
from .sites import ad_mri_sites
from .truth import with_true_regions

__all__ = ["ad_mri_ceilings", "ad_mri_partitions", "ad_mri_sites", "images_to_predict", "with_true_regions"]
