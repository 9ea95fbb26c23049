"""The console's routes: each reads what is asked, has it recorded, and renders a page model."""
