package install

import (
	"context"
	"fmt"
	"strings"
)

// Placement is what the runtime would find of the plugin.
type Placement struct {
	Conflist string // that the runtime loads; empty where there is none
	Network  string // the name that it gives
	Position int    // of the plugin's entry in it, counted from 1; 0: not in it
	ListErr  error  // why there is no conflist, or why the entry has no effect there

	Answers   bool
	Version   string // empty where the plugin does not say
	AnswerErr error  // why it does not answer
}

// Look finds the conflist as install does, and asks the plugin for its version until ctx ends. It writes nothing.
func Look(ctx context.Context, confDir, binDir string) Placement {
	o := Options{ConfDir: confDir, BinDir: binDir, AllowIPMasq: true}
	var p Placement
	if n, _, err := o.find(); err != nil {
		p.ListErr = err
	} else {
		p.Conflist, p.Network = n.path, stringOf(n.list.keys["name"])
		if own := n.list.own(); len(own) > 0 {
			p.Position = own[0] + 1
		}
	}
	out, err := runPlugin(ctx, "", "CNI_COMMAND=", o.target(), "--version")
	if err != nil {
		p.AnswerErr = fmt.Errorf("%s: %w", o.target(), err)
		return p
	}
	p.Answers = true
	name, version, _ := strings.Cut(firstLine(out), " ")
	if name == pluginType && version != unstamped {
		p.Version = version
	}
	return p
}

// unstamped is what a plugin says that was built without a version.
const unstamped = "version unknown"
