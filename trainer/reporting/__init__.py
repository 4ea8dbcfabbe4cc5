"""From every rank's measurements to what a person sees: journal, terminal, experiment tracker."""
