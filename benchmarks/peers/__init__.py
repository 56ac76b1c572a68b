"""What the product is measured beside: peers, floors and naive alternatives, each as its own users run it."""
