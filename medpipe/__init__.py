"""Distributed batch scoring of hospital data: deliveries in, Delta tables of scores and recommendations out."""

__version__ = "0.1.0"
