

@pytest.mark.parametrize("spatial", [(), (4, 4)])
def test_cross_entropy_takes_classes_with_a_channel(spatial):
    """As MONAI's transforms give them, and as float."""
    torch.manual_seed(0)
    logits, label = torch.randn(5, 3, *spatial), torch.randint(3, (5, 1, *spatial))
    wanted = torch.nn.functional.cross_entropy(logits, label.squeeze(1))
    for given in (label, label.float(), label.squeeze(1)):
        torch.testing.assert_close(ARMEDLoss(torch.nn.CrossEntropyLoss()).error(logits, given), wanted)
