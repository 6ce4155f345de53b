// The colours of curves and shares, told apart in both themes.

export const INKS = ["#2a9d8f", "#e08a3c", "#5b7fd6", "#c2577a", "#8c6bc8", "#8a9a2d", "#4aa3c7", "#a86f4a"] as const;
export const ink = (index: number): string => INKS[index % INKS.length] as string;
