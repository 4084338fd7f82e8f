"""The images of the open project: list, navigation, reading ahead."""
