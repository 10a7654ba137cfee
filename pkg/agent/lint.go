package agent

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/cli"
	"github.com/ip-masq/ip-masq-cni/pkg/config"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ranges"
	"github.com/ip-masq/ip-masq-cni/pkg/status"
)

// lintReport is what lint prints for programs.
type lintReport struct {
	APIVersion string           `json:"apiVersion"`
	Findings   []config.Finding `json:"findings"`
	Policy     *policy.Policy   `json:"policy"` // nil where the file has errors
}

// lint prints every finding of a file, and without an error what the file puts in force. Exit status 1 means errors.
func (p Program) lint(o Options, args []string) error {
	loaded, findings, err := p.lintFile(o, args[0])
	var inForce *policy.Policy
	if err == nil {
		accepted := loaded.Policy()
		inForce = &accepted
	}
	printErr := p.print(o, lintReport{status.APIVersion, append([]config.Finding{}, findings...), inForce}, func() {
		printFindings(p.Stdout, findings)
		if inForce != nil {
			_, _ = fmt.Fprintf(p.Stdout, "%s: ok: %s\n", args[0], summary(*inForce, loaded.ResyncInterval))
		}
	})
	if printErr != nil {
		return printErr
	}
	if err != nil {
		return cli.Exit(cli.StatusFailure)
	}
	return nil
}

// lintFile checks a file, a directory, or what is on stdin. The ranges that should keep their source are what this node knows
// of, and what the flags say.
func (p Program) lintFile(o Options, path string) (config.Config, []config.Finding, error) {
	known, err := ranges.Find(o.Cache.ConfDir, o.Settings.IPv6)
	if err != nil {
		_, _ = fmt.Fprintf(p.Stderr, "ip-masq-agent: not every range of this node is known: %v\n", err)
	}
	known = append(o.Ranges, known...)
	if path == "-" {
		data, err := io.ReadAll(os.Stdin)
		if err != nil {
			return config.Config{}, nil, fmt.Errorf("read stdin: %w", err)
		}
		return config.LintText(path, data, o.Config, known)
	}
	o.Config.Path, o.Config.AllowDir, o.Config.Required = path, true, true
	return config.Lint(o.Config, known)
}

// summary says what a policy does, in one line.
func summary(p policy.Policy, resync time.Duration) string {
	var parts []string
	for _, verdict := range []policy.Verdict{policy.Keep, policy.Masquerade} {
		var prefixes []string
		for _, family := range p.Settings.Families() {
			for _, d := range p.Destinations(family) {
				if d.Verdict == verdict {
					prefixes = append(prefixes, d.Prefix.String())
				}
			}
		}
		if len(prefixes) > 0 {
			parts = append(parts, string(verdict)+" "+enumerate(prefixes))
		}
	}
	return strings.Join(append(parts, "masquerade every other destination", "resync every "+resync.String()), "; ")
}

// enumerated bounds how many prefixes one line names.
const enumerated = 10

func enumerate(names []string) string {
	if more := len(names) - enumerated; more > 0 {
		names = append(names[:enumerated:enumerated], fmt.Sprintf("and %d more", more))
	}
	return strings.Join(names, ", ")
}
