"""Evaluating models: metrics, sweeps over settings, and the search of a CRF."""
