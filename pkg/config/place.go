package config

import (
	"bytes"
	"fmt"
	"unicode/utf8"
)

// position is a place in one file, counted from 1; the zero value is unknown.
type position struct{ line, column int }

// place is a position, the file that it is in, and the key that it belongs to.
type place struct {
	file string
	position
	key string
}

// seenFrom names the place for a message about another one, which need not repeat the file that both share.
func (p place) seenFrom(other place) string {
	if p.file == other.file {
		return fmt.Sprintf("line %d", p.line)
	}
	return fmt.Sprintf("%s:%d", p.file, p.line)
}

// cursor translates byte offsets into positions. It only moves forward, so that a list of 100,000 items in one line
// does not count that line 100,000 times.
type cursor struct {
	data   []byte
	offset int
	at     position
}

func newCursor(data []byte) *cursor { return &cursor{data: data, at: position{1, 1}} }

// moveTo returns the position of the byte at offset, which must not be before the last one asked for.
func (c *cursor) moveTo(offset int) position {
	passed := c.data[c.offset:offset]
	if newlines := bytes.Count(passed, []byte("\n")); newlines > 0 {
		c.at = position{c.at.line + newlines, 1}
		passed = passed[bytes.LastIndexByte(passed, '\n')+1:]
	}
	c.at.column += utf8.RuneCount(passed)
	c.offset = offset
	return c.at
}

func positionOf(data []byte, offset int) position { return newCursor(data).moveTo(offset) }
