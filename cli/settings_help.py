"""Commands whose `--help` also lists the settings of the service, made from where they are defined."""

from typer._click.core import Context  # typer has its own click, and no other door to it
from typer._click.formatting import HelpFormatter
from typer.core import TyperCommand


class CommandWithSettings(TyperCommand):
    """A command that reads the settings of the service from its environment."""

    def format_help(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Write the usual help, then the settings."""
        from service.settings import described_settings

        super().format_help(ctx, formatter)
        formatter.width = 100
        with formatter.section("Settings of the service, environment variables"):
            formatter.write_dl(
                [
                    (setting.variable, f"{setting.description} [default: {setting.default}]")
                    for setting in described_settings()
                ]
            )
