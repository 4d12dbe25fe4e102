"""A translation service over HTTP: a page, an API of its own, and those of other services.

``run(models, settings)`` serves until a signal; ``service.Service`` is the one function under all
dialects; ``queue.DeviceQueue`` runs everything on one thread that owns the device.
"""
