package cli

import (
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// longFlags writes flags that have one dash, as Go's flag package takes them and so the Kubernetes agent's manifests have them,
// with two. What is the value of a flag stays as it is. It also finds --version, which counts wherever it stands: also where a
// command wants arguments that are not there.
func longFlags(root *cobra.Command, args []string) (long []string, version bool) {
	if len(args) > 0 && strings.HasPrefix(args[0], cobra.ShellCompRequestCmd) {
		return args, false // the shell asks what an unfinished line may go on with
	}
	valued := valuedFlags(root)
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			return append(long, args[i:]...), version
		}
		if len(arg) > 1 && arg[0] == '-' && arg[1] != '-' && arg != "-h" {
			arg = "-" + arg
		}
		long = append(long, arg)
		name, isFlag := strings.CutPrefix(arg, "--")
		version = version || arg == "--version"
		if isFlag && valued[name] && i+1 < len(args) {
			i++
			long = append(long, args[i])
		}
	}
	return long, version
}

// valuedFlags are the flags whose value is the next argument.
func valuedFlags(root *cobra.Command) map[string]bool {
	valued := map[string]bool{}
	each(root, func(c *cobra.Command) {
		c.Flags().VisitAll(func(f *pflag.Flag) { valued[f.Name] = f.NoOptDefVal == "" })
	})
	return valued
}
