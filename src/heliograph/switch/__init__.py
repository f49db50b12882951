# SPDX-License-Identifier: Apache-2.0
"""The switch: a client of the database that keeps the data plane equal to the rows.

Three flows, one direction each: intent -> plan -> reconcile (configuration), and feedback.
"""
