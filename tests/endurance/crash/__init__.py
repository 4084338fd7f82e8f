"""Parts of crash_driver.py: readers that are killed, failing disks, and the check."""
