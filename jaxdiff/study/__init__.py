"""Populations of trainings: their members, one program for many, and which are dropped."""
