"""One file per outcome; each runs as `medpipe run NAME` and as `spark-submit jobs/NAME.py`."""
