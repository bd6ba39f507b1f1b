"""The peers, one file each; these modules are imported only where their package is installed."""
