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

"""Copies, saved weights, exports, compilation and vectorisation of wrapped networks."""

from __future__ import annotations

import copy
import io
import pickle
import warnings

import pytest
import torch
from torch.func import functional_call, stack_module_state, vmap
from wrapped_networks import set_random, wrapped


@pytest.mark.parametrize("name", ["DenseNet121", "DFNN", "UNet"])
def test_copies_pickles_and_saves(name):
    net, x, cluster = wrapped(name)
    set_random(net).eval()
    wanted = net(x, cluster)
    torch.testing.assert_close(copy.deepcopy(net)(x, cluster), wanted)
    torch.testing.assert_close(pickle.loads(pickle.dumps(net))(x, cluster), wanted)
    stream = io.BytesIO()
    torch.save(net.state_dict(), stream)
    stream.seek(0)
    other = wrapped(name)[0]
    other.load_state_dict(torch.load(stream, weights_only=True))
    torch.testing.assert_close(other.eval()(x, cluster), wanted)


@pytest.mark.parametrize("name", ["DenseNet121", "CNN", "ViT", "UNet"])
def test_traces_and_exports(name):
    net, x, cluster = wrapped(name)
    set_random(net).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(net, x)
        torch.testing.assert_close(traced(x[:2]), net(x[:2]))
        exported = torch.export.export(net, (x, cluster))
    torch.testing.assert_close(exported.module()(x, cluster), net(x, cluster))


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_compiles(mode):
    net, x, cluster = wrapped("CNN", random_effects={"posterior_scale": 1e-12})
    getattr(net, mode)()
    compiled = torch.compile(net, backend="eager")(x, cluster)
    plain = net(x, cluster)
    for key in plain if mode == "train" else ():
        torch.testing.assert_close(compiled[key], plain[key], rtol=1e-4, atol=1e-5)
    if mode == "eval":
        torch.testing.assert_close(compiled, plain)


@pytest.mark.parametrize("sampling", ["cluster", "sample"])
def test_stacks_under_vmap(sampling):
    nets = [set_random(wrapped("DFNN", random_effects={"sampling": sampling})[0]) for _ in range(3)]
    _, x, cluster = wrapped("DFNN")
    params, buffers = stack_module_state(nets)

    def call(p, b, mode):
        out = functional_call(nets[0], (p, b), (x, cluster))
        return out["mixed"] if mode == "train" else out

    out = vmap(lambda p, b: call(p, b, "train"), randomness="different")(params, buffers)
    assert out.shape == (3, 4, 1)
    for net in nets:
        net.eval()
    out = vmap(lambda p, b: call(p, b, "eval"))(params, buffers)
    for i, net in enumerate(nets):
        torch.testing.assert_close(out[i], net(x, cluster))
