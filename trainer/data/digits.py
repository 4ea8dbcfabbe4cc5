"""Scikit-learn's handwritten digits: 1,797 real images that come with the package (UCI Optical Recognition of
Handwritten Digits, Alpaydin & Kaynak 1998)."""

import torch

from trainer.data.images import Images, Split, checked

TEST_SHARE = 0.2


class Digits:
    """The digits as RGB images; 1,437 for training and 360 for testing, a fixed stratified split."""

    def load(self) -> Images:
        """Images ``(N, 3, 8, 8)``, before any resizing."""
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        digits = load_digits()
        levels = torch.from_numpy(digits.images)  # 0 to 16
        images = (levels * (255 / 16)).round().to(torch.uint8)[:, None].expand(-1, 3, -1, -1)
        labels = torch.from_numpy(digits.target).long()
        train, test = train_test_split(range(len(labels)), test_size=TEST_SHARE, stratify=labels, random_state=0)
        return checked(Split(images[train], labels[train]), Split(images[test], labels[test]), 10, "the digits dataset")
