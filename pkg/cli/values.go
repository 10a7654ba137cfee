package cli

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
)

// value is a flag whose text is checked as it is parsed, so that the error names the flag.
type value struct {
	to    *string
	kind  string
	check func(string) error
}

func (v *value) String() string {
	if v.to == nil {
		return ""
	}
	return *v.to
}

func (v *value) Type() string { return v.kind }

func (v *value) Set(text string) error {
	if err := v.check(text); err != nil {
		return err
	}
	*v.to = text
	return nil
}

func add(flags *pflag.FlagSet, to *string, name, byDefault, usage string, check func(string) error) {
	*to = byDefault
	flags.Var(&value{to, "string", check}, name, usage)
}

// Text registers a flag that may not be empty, as an unset variable in a manifest would make it.
func Text(flags *pflag.FlagSet, to *string, name, byDefault, usage string) {
	add(flags, to, name, byDefault, usage, func(text string) error {
		if text == "" {
			return fmt.Errorf("give it a value, or leave the flag out for %s", byDefault)
		}
		return nil
	})
}

// OneOf registers a flag that takes one of a few words.
func OneOf(flags *pflag.FlagSet, to *string, name, usage string, words ...string) {
	add(flags, to, name, words[0], usage, func(text string) error {
		if slices.Contains(words, text) {
			return nil
		}
		last := len(words) - 1
		return fmt.Errorf("want %s or %s", strings.Join(words[:last], ", "), words[last])
	})
}

// Address registers a flag for HOST:PORT, or nothing.
func Address(flags *pflag.FlagSet, to *string, name, byDefault, usage string) {
	add(flags, to, name, byDefault, usage, func(text string) error {
		if text == "" {
			return nil
		}
		_, port, err := net.SplitHostPort(text)
		if err == nil {
			_, err = strconv.ParseUint(port, 10, 16)
		}
		if err != nil {
			return errors.New("want HOST:PORT, such as " + byDefault)
		}
		return nil
	})
}
