"""`factory completion`: what a shell needs so that TAB completes commands, options and names."""

from __future__ import annotations

import click
from click.shell_completion import BashComplete, add_completion_class, get_completion_class, split_arg_string

from factory_lib.commands.options import OneOf, command

SHELLS = ("bash", "zsh", "fish")
_INSTALL = {
    "bash": """# To complete in every bash to come, this line in ~/.bashrc:   eval "$(factory completion bash)"
# or, where bash-completion is installed: factory completion bash > ~/.local/share/bash-completion/completions/factory
""",
    "zsh": """#compdef factory
# To complete in every zsh to come: this line in ~/.zshrc, below compinit:   eval "$(factory completion zsh)"
# or a file _factory with this text in a folder of $fpath.
""",
    "fish": """# To complete in every fish to come: factory completion fish > ~/.config/fish/completions/factory.fish
""",
}
_BASH = r"""%(complete_func)s() {
    local IFS=$'\n' response completion type value
    local line="${COMP_LINE:0:COMP_POINT}"
    local word="${line##*[[:space:]]}" typed=""
    # bash takes what stands behind one of its word breaks for the word: laion@icml is two words to it.
    if [[ $word == *[@:=]* && $COMP_WORDBREAKS == *[@:=]* ]]; then
        typed="${word%%"${word##*[@:=]}"}"
    fi
    response=$(env COMP_LINE="$line" %(complete_var)s=bash_complete "$1" 2>/dev/null)
    COMPREPLY=()
    for completion in $response; do
        type="${completion%%%%,*}"
        value="${completion#*,}"
        if [[ $type == 'dir' ]]; then
            compopt -o dirnames
        elif [[ $type == 'file' ]]; then
            compopt -o default
        elif [[ $type == 'plain' ]]; then
            COMPREPLY+=("${value#"$typed"}")
        fi
    done
    return 0
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""


class WholeWords(BashComplete):
    """Completion for bash that sees words as they are written, also where they hold what bash takes for word breaks."""

    name = "bash"
    source_template = _BASH

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before the one that is completed, and that one."""
        from factory_lib.environment import typed_line

        line = typed_line()
        words = split_arg_string(line)[1:]
        return (words, "") if not line or line[-1].isspace() or not words else (words[:-1], words[-1])


add_completion_class(WholeWords)


@command(
    """
    eval "$(factory completion bash)"
    factory completion fish > ~/.config/fish/completions/factory.fish
    """,
    json=False,
)
@click.argument("shell", metavar="SHELL", type=OneOf(SHELLS))
def completion_command(shell: str) -> None:
    """Print what makes TAB complete: SHELL is bash, zsh or fish.

    TAB then completes commands, options, datasets, versions, tags, stages and files. Names are those of an engine that
    runs: none is started for a TAB.
    """
    kind = get_completion_class(shell)
    root = click.get_current_context().find_root()
    assert kind is not None
    text = kind(root.command, {}, "factory", COMPLETES).source()
    click.echo(_INSTALL[shell] + text.replace("#compdef factory\n", ""))


COMPLETES = "_FACTORY_COMPLETE"
"""The variable by which a shell asks for completions."""
