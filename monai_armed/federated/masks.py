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

"""Numbers of several hospitals behind masks that cancel in their sum: who adds them up learns the sum alone."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable

import numpy as np
import torch
from monai.utils import optional_import

__all__ = ["Masks", "unmasked_sum"]

hazmat = "cryptography.hazmat.primitives"
x25519, HAS_CRYPTOGRAPHY = optional_import(f"{hazmat}.asymmetric.x25519")
hashes, _ = optional_import(f"{hazmat}.hashes")
hkdf, _ = optional_import(f"{hazmat}.kdf.hkdf")
ciphers, _ = optional_import(f"{hazmat}.ciphers")

FRACTION = 64  # bits after the point: doubles from 2^-12 on are kept whole, others to 2^-64
BYTES = 16
MODULUS = 1 << 8 * BYTES


class Masks:
    """
    A hospital's part in the secure sum of Bonawitz et al. 2017 (https://arxiv.org/abs/1611.04482), without their
    recovery of a hospital that drops out: then all begin anew, with other keys. Every two hospitals agree on a secret
    (X25519, HKDF) that who hands on their public keys does not learn; one adds a stream made of it (AES in counter
    mode), the other subtracts it. Numbers are whole ones modulo 2^128, so that the masks cancel exactly and a masked
    number alone is one as likely as any other.

    Good for one sum: a mask that is used twice tells the difference of what it hides.

    Raises:
        ValueError: when the package cryptography is not installed.

    Example:
        >>> one, other = Masks(), Masks()
        >>> keys = [one.key, other.key]
        >>> unmasked_sum([one.hide(torch.ones(2), keys), other.hide(torch.ones(2), keys)])
        tensor([2., 2.], dtype=torch.float64)
    """

    def __init__(self) -> None:
        if not HAS_CRYPTOGRAPHY:
            raise ValueError('cryptography is not installed: pip install "monai_armed[federated]".')
        self._private = x25519.X25519PrivateKey.generate()
        self.key: str = self._private.public_key().public_bytes_raw().hex()  # the public one

    def hide(self, values: torch.Tensor, keys: Collection[str]) -> torch.Tensor:
        """
        Args:
            values: (N,), finite.
            keys: the public keys of all whose numbers are added up, this one's among them.

        Returns:
            (N, 16) bytes.

        Raises:
            ValueError: when a number is too large to be added up.
        """
        largest = float(values.abs().max())
        if not largest < 2.0 ** (8 * BYTES - FRACTION - 1) / len(keys):
            raise ValueError(f"a sum of features of {largest:.3g} is too large: scale the inputs or the features.")
        whole = [int(math.ldexp(value, FRACTION)) for value in values.tolist()]
        for key in sorted(set(keys) - {self.key}):
            sign = 1 if self.key < key else -1
            whole = [number + sign * mask for number, mask in zip(whole, self._mask(key, keys, len(whole)))]
        packed = b"".join((number % MODULUS).to_bytes(BYTES, "little") for number in whole)
        return torch.from_numpy(np.frombuffer(packed, dtype=np.uint8).reshape(-1, BYTES).copy())

    def _mask(self, key: str, keys: Iterable[str], length: int) -> list[int]:
        shared = self._private.exchange(x25519.X25519PublicKey.from_public_bytes(bytes.fromhex(key)))
        about = ("monai_armed sums " + " ".join(sorted(keys))).encode()
        secret = hkdf.HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=about).derive(shared)
        stream = ciphers.Cipher(ciphers.algorithms.AES(secret), ciphers.modes.CTR(bytes(16))).encryptor()
        return _numbers(stream.update(bytes(BYTES * length)))


def unmasked_sum(parts: Collection[torch.Tensor]) -> torch.Tensor:
    """
    Args:
        parts: of every hospital whose key the others had, (N, 16) bytes from :py:meth:`Masks.hide`.

    Returns:
        the sum (N,) of what they hide, in double precision.
    """
    columns = zip(*(_numbers(part.numpy().tobytes()) for part in parts))
    whole = [(sum(column) + MODULUS // 2) % MODULUS - MODULUS // 2 for column in columns]
    return torch.tensor([math.ldexp(float(number), -FRACTION) for number in whole], dtype=torch.double)


def _numbers(packed: bytes) -> list[int]:
    return [int.from_bytes(packed[at : at + BYTES], "little") for at in range(0, len(packed), BYTES)]
