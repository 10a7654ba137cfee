// Package attachment holds the nouns of the pods' side: who owns an address (Owner), what is attached (Attachment), and the
// records of both on disk (Store).
//
// It refuses to know rules or backends, and it never deletes a record on its own judgement: callers decide what is dead.
package attachment

import (
	"encoding/binary"
	"encoding/hex"
	"hash/fnv"
	"strings"
)

// Owner identifies an attachment as the CNI specification does: the network's name, the container's id and the interface's
// name inside the container.
type Owner struct {
	Network     string `json:"network"`
	ContainerID string `json:"containerID"`
	IfName      string `json:"ifName"`
}

// ID is an owner in 32 hexadecimal digits, safe in file names, comments and iptables-restore input whatever the names hold.
// Its first 8 digits depend on the network alone, so that GC knows a network's rules also when their record is lost.
type ID string

// networkDigits is the length of the part of an ID that depends on the network alone.
const networkDigits = 8

// IDLength is the number of hexadecimal digits in an ID.
const IDLength = 32

// ID returns the owner's id.
func (o Owner) ID() ID {
	whole := digest(o.Network, o.ContainerID, o.IfName)
	return ID(digest(o.Network)[:networkDigits] + whole[:IDLength-networkDigits])
}

// Of reports whether the id belongs to an attachment of the named network.
func (id ID) Of(network string) bool {
	return len(id) == IDLength && string(id[:networkDigits]) == digest(network)[:networkDigits]
}

// Valid reports whether id has the form of an ID.
func (id ID) Valid() bool {
	var decoded [IDLength / 2]byte
	if len(id) != IDLength {
		return false
	}
	_, err := hex.Decode(decoded[:], []byte(id))
	return err == nil
}

// digest hashes the parts with a separator that no CNI name can hold. FNV is enough, because nothing secret depends on it and
// runtimes draw container ids at random; a cryptographic hash costs the plugin a tenth of its size and part of its start. Its
// high bits hardly differ between short texts, so both halves are mixed, which loses nothing: each step can be undone.
func digest(parts ...string) string {
	var text []byte
	for i, part := range parts {
		if i > 0 {
			text = append(text, 0)
		}
		text = append(text, part...)
	}
	hash := fnv.New128a()
	_, _ = hash.Write(text)
	sum := hash.Sum(text[:0])
	low := mix(binary.BigEndian.Uint64(sum[8:]))
	binary.BigEndian.PutUint64(sum, mix(binary.BigEndian.Uint64(sum)^low))
	binary.BigEndian.PutUint64(sum[8:], low)
	return hex.EncodeToString(sum)
}

// mix is the finalizer of SplitMix64: every bit of x changes every bit of the result with a chance of a half.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// Label names the owner for a human who reads rules: network, interface and the start of the container's id, in characters
// that need no quoting and 70 of them at most.
func (o Owner) Label() string {
	return plain(o.Network, 40) + " " + plain(o.IfName, 15) + " " + plain(o.ContainerID, 13)
}

// plain cuts text to limit and replaces everything but letters, digits, dots, dashes and underscores.
func plain(text string, limit int) string {
	mapped := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '.', r == '-', r == '_':
			return r
		}
		return '_'
	}, text)
	if mapped == "" {
		return "_"
	}
	return mapped[:min(len(mapped), limit)]
}
