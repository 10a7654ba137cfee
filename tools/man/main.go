// Command man writes the manual pages and the shells' completions of agent and installer, from their command lines:
//
//	OUT/man/man8/PROGRAM[-COMMAND].8    for man
//	OUT/completions/PROGRAM.bash, _PROGRAM (zsh), PROGRAM.fish
//
// It is a module of its own because the writer of manual pages brings a Markdown parser, which the programs need not have. It
// refuses to read a clock: SOURCE_DATE_EPOCH dates the pages, and without it they are from 1970.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"github.com/ip-masq/ip-masq-cni/pkg/agent"
	"github.com/ip-masq/ip-masq-cni/pkg/cli"
	"github.com/ip-masq/ip-masq-cni/pkg/install"
	"github.com/ip-masq/ip-masq-cni/pkg/version"
)

func main() {
	out := flag.String("o", "bin/man", "`directory` to write to")
	release := flag.String("version", version.String(), "`version` that the pages name")
	flag.Parse()
	if err := write(*out, *release); err != nil {
		fmt.Fprintln(os.Stderr, "man:", err)
		os.Exit(1)
	}
}

func write(out, release string) error {
	date, err := created()
	if err != nil {
		return err
	}
	for _, root := range []*cobra.Command{agent.Program{Stdout: io.Discard, Stderr: io.Discard}.Commands(), install.Command()} {
		cli.Prepare(root)
		root.DisableAutoGenTag = true
		if err := pages(root, filepath.Join(out, "man", "man8"), release, date); err != nil {
			return err
		}
		if err := completions(root, filepath.Join(out, "completions")); err != nil {
			return err
		}
	}
	return nil
}

// created is the date of the source, as for everything of a release.
func created() (time.Time, error) {
	text := os.Getenv("SOURCE_DATE_EPOCH")
	if text == "" {
		return time.Unix(0, 0).UTC(), nil
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH %q: want seconds since 1970", text)
	}
	return time.Unix(seconds, 0).UTC(), nil
}

func pages(root *cobra.Command, dir, release string, date time.Time) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	header := &doc.GenManHeader{Section: "8", Source: "ip-masq " + release, Manual: "ip-masq", Date: &date}
	return doc.GenManTree(root, header, dir)
}

func completions(root *cobra.Command, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	name := filepath.Join(dir, root.Name())
	if err := root.GenBashCompletionFileV2(name+".bash", true); err != nil {
		return err
	}
	if err := root.GenFishCompletionFile(name+".fish", true); err != nil {
		return err
	}
	return root.GenZshCompletionFile(filepath.Join(dir, "_"+root.Name()))
}
