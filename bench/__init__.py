# SPDX-License-Identifier: Apache-2.0
"""Heliograph measured beside what else a Linux host can do, all in one run (`make bench`)."""
