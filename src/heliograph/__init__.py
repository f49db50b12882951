# SPDX-License-Identifier: Apache-2.0
"""Heliograph: a virtual switch for Linux whose speciality is port mirroring."""

__version__ = "0.1.0"
