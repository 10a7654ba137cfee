package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/ip-masq/ip-masq-cni/pkg/backend/registry"
	"github.com/ip-masq/ip-masq-cni/pkg/config"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// render prints the desired state: the config's policy and the attachments on record, in the words of the backend in use. It
// reads files only.
func (p Program) render(o Options, _ []string) int {
	loaded, findings, err := config.Load(o.Config)
	printFindings(p.Stderr, findings)
	if err != nil {
		return exitFailure
	}
	n := newNode(o, slog.New(slog.DiscardHandler))
	records, err := n.Records()
	if err != nil {
		return p.failed(err)
	}
	decision, _ := n.Decision()
	if decision.Kind != "" {
		o.Settings.RandomFully = o.Settings.RandomFully && decision.Features.RandomFully
	}
	state := ruleset.Build(loaded.Policy(o.Settings), records, nil)
	if o.Format == "json" {
		return p.printJSON(state)
	}
	_, _ = fmt.Fprint(p.Stdout, registry.Render(o.Backend, decision.Kind, state))
	return exitOK
}

// lint prints every finding of a file.
func (p Program) lint(o Options, args []string) int {
	o.Config.Path, o.Config.AllowDir = args[0], true
	_, findings, err := config.Load(o.Config)
	if err == nil {
		err = missing(args[0])
	}
	var invalid *config.InvalidError
	if err != nil && !errors.As(err, &invalid) {
		findings = append(findings, config.Finding{File: args[0], Severity: config.Error, Message: err.Error()})
	}
	if o.Format == "json" {
		p.printJSON(append([]config.Finding{}, findings...))
	} else {
		printFindings(p.Stdout, findings)
	}
	if err != nil {
		return exitFailure
	}
	return exitOK
}

// missing refuses a file that is not there: the daemon takes that for "all default", but somebody who names a file to check
// did not mean that.
func missing(path string) error {
	if _, err := os.Stat(path); err != nil {
		return fmt.Errorf("cannot be checked: %w", err)
	}
	return nil
}

func printFindings(to io.Writer, findings []config.Finding) {
	for _, finding := range findings {
		_, _ = fmt.Fprintln(to, finding)
	}
}

func (p Program) printJSON(document any) int {
	encoder := json.NewEncoder(p.Stdout)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(document); err != nil {
		return p.failed(fmt.Errorf("encode output: %w", err))
	}
	return exitOK
}
