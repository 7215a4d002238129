"""Datasets for unetzoo in their official layouts: Oxford-IIIT Pet, DRIVE and ISIC 2018, with a recipe each."""
