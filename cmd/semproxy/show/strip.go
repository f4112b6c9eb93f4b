package show

// StripWidth is the width of lines that show a text of tokens.
const StripWidth = 100

// Letters mark the cores that tokens belong to.
const Letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

// Palette is a set of light backgrounds of the 256-colour terminal that black text can be read on.
var Palette = []int{217, 223, 229, 193, 158, 159, 153, 189, 225, 216, 222, 228, 192, 157, 123, 117, 183, 219, 210, 180, 186, 150, 115, 116, 111, 147, 177, 175}
