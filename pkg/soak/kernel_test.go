package soak

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// kernel reads the state without our code: from what iptables-save and nft print, and the names of the records.
func (r *run) kernel() state {
	s := state{Records: []string{}}
	files, _ := os.ReadDir(filepath.Join(r.StateDir, "attachments"))
	for _, f := range files {
		if id, isRecord := strings.CutSuffix(f.Name(), ".json"); isRecord {
			s.Records = append(s.Records, id)
		}
	}
	ours := r.variant
	if r.model.backend == "nftables" {
		ours = "nftables"
	}
	read := func(kind, program string) *table {
		t := savedTable(r.output(program, "-t", "nat"))
		if t != nil && kind != ours {
			s.Others += fmt.Sprintf("%s: %+v\n", program, *t)
			return nil
		}
		return t
	}
	tables := [2]*table{}
	for _, kind := range []string{"nft", "legacy"} {
		for i, program := range []string{"iptables", "ip6tables"} {
			if t := read(kind, program+"-"+kind+"-save"); t != nil {
				tables[i] = t
			}
		}
	}
	if native := r.output("nft", "-j", "list", "table", "inet", "ip-masq-agent"); ours == "nftables" {
		tables = listedTables(native)
	} else if native != "" {
		s.Others += native
	}
	s.IPv4, s.IPv6 = tables[0], tables[1]
	return s
}

// savedTable reads iptables-save; nil where none of our chains is there.
func savedTable(saved string) *table {
	t := &table{Keep: []string{}, Pods: []string{}}
	there := false
	for line := range strings.Lines(saved) {
		words := strings.Fields(line)
		if len(words) < 2 || !strings.Contains(line, "IP-MASQ-AGENT") {
			continue
		}
		there = true
		switch {
		case words[0] != "-A":
		case words[1] == "POSTROUTING":
			t.Roots++
		case words[1] == "IP-MASQ-AGENT-PODS":
			_, owner, _ := strings.Cut(line, "ipmasq v1 ")
			t.Pods = append(t.Pods, hostOf(words[3])+" "+owner[:32])
		case strings.Contains(line, "-j RETURN") && words[2] == "-d" && !t.Ends:
			t.Keep = append(t.Keep, words[3])
		case strings.Contains(line, "-j MASQUERADE") && words[2] == "-m" && !t.Ends:
			t.Ends = true
		default:
			t.Keep = append(t.Keep, line) // not what we write
		}
	}
	if !there {
		return nil
	}
	slices.Sort(t.Pods)
	return t
}

func hostOf(prefix string) string {
	host, _, _ := strings.Cut(prefix, "/")
	return host
}

// listing is the part of `nft -j` that says something here.
type listing struct {
	NFTables []struct {
		Set *struct {
			Name string
			Elem []json.RawMessage
		}
		Rule *struct {
			Chain string
			Expr  []json.RawMessage
		}
	}
}

// listedTables reads `nft -j list table`, IPv4 first.
func listedTables(text string) (tables [2]*table) {
	var l listing
	if json.Unmarshal([]byte(text), &l) != nil {
		return tables
	}
	for _, object := range l.NFTables {
		if set := object.Set; set != nil {
			family, name := strings.Index("46", set.Name[len(set.Name)-1:]), set.Name[:len(set.Name)-1]
			t := tables[family]
			if t == nil {
				t = &table{Keep: []string{}, Pods: []string{}}
				tables[family] = t
			}
			for _, e := range set.Elem {
				t.addElement(name, e)
			}
		}
	}
	for _, t := range tables {
		if t != nil {
			slices.Sort(t.Pods)
			slices.Sort(t.Keep)
		}
	}
	for _, object := range l.NFTables {
		if rule := object.Rule; rule != nil {
			expressions, _ := json.Marshal(rule.Expr)
			for i, set := range []string{`"@pods4"`, `"@pods6"`} {
				t := tables[i]
				switch {
				case t == nil:
				case rule.Chain == "postrouting" && strings.Contains(string(expressions), set):
					t.Roots++
				case rule.Chain == "IP-MASQ-AGENT" && strings.HasSuffix(string(expressions), `{"masquerade":{"flags":"fully-random"}}]`):
					t.Ends = true
				}
			}
		}
	}
	return tables
}

// addElement takes in a pod, with its owner as the comment, or a prefix that is kept, with its counter.
func (t *table) addElement(set string, raw json.RawMessage) {
	var e struct {
		Elem struct {
			Val     json.RawMessage
			Comment string
			Counter *struct{}
		}
	}
	var address string
	var kept struct {
		Prefix struct {
			Addr string
			Len  int
		}
	}
	_ = json.Unmarshal(raw, &e)
	switch {
	case set == "pods" && json.Unmarshal(e.Elem.Val, &address) == nil:
		owner, _, _ := strings.Cut(e.Elem.Comment, " ")
		t.Pods = append(t.Pods, address+" "+owner)
	case set == "keep" && e.Elem.Counter != nil && json.Unmarshal(e.Elem.Val, &kept) == nil && kept.Prefix.Addr != "":
		t.Keep = append(t.Keep, fmt.Sprintf("%s/%d", kept.Prefix.Addr, kept.Prefix.Len))
	default:
		t.Keep = append(t.Keep, set+": "+string(raw)) // not what we write
	}
}
